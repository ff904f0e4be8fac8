#!/bin/bash
# Starts a command again whenever it fails, as long as it makes progress:
#   docs/slurm/keep_going.sh checkpoints/long mpirun -np 8 python -m train --model_name long
# Stops after 3 failures in a row without a new save in the run folder, and at once on a mistake in a setting
# (exit code 2) or if it is interrupted (130).
run=$1; shift
newest() { ls "$run" 2>/dev/null | grep -E '^step_[0-9]+$' | sort | tail -n 1; }

failures=0
while true; do
    before=$(newest)
    "$@"; code=$?
    case $code in 0 | 2 | 130) exit "$code" ;; esac
    if [ "$(newest)" = "$before" ]; then failures=$((failures + 1)); else failures=0; fi
    echo "keep_going: exit code $code, newest save ${before:-none} -> $(newest)" >&2
    if [ "$failures" -ge 3 ]; then
        echo "keep_going: $failures failures in a row without progress: stopped" >&2
        exit "$code"
    fi
    sleep "${PAUSE_S:-10}"
done
