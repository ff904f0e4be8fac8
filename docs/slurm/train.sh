#!/bin/bash
#SBATCH --job-name=meta-rl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=16
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Trains until it is done, over as many time slots as it takes:  sbatch docs/slurm/train.sh rl2 --model_name long
# Two minutes before the end of the slot Slurm sends USR1 to this script, which passes it on: the ranks save
# after the current iteration and exit; then the job is put back into the queue, and continues from there.

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

signalled=no
trap 'signalled=yes; scancel --signal=USR1 "$SLURM_JOB_ID.0" || kill -USR1 "$step"' USR1

srun --kill-on-bad-exit=1 python -m train "$@" &
step=$!
wait "$step"; code=$?
while kill -0 "$step" 2>/dev/null; do  # a signal ends `wait`, not the step
    wait "$step"; code=$?
done

if [ "$signalled" = yes ] && [ "$code" -eq 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
