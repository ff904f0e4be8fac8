"""Whether a rewrite changes results or speed:  python -m benchmarks.unchanged COMMIT [flags]

Trains every system for a few iterations in this tree and in COMMIT's, with one rank and with two, evaluates
each run, and compares digests of every stored tensor, of the table of metrics (times apart) and of the
evaluation's rows; of small comparisons (comparison_cart_pole, comparison_particle) those of every result.
Then measures `benchmarks.throughput` of all systems in both trees by turns; a ratio above 1 is this tree
being slower. Prints one JSON line; exit code 1 if a digest differs.
"""

import argparse
import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from safetensors import safe_open

ROOT = Path(__file__).parent.parent
SMALL_RL2 = (
    "--num_features 16 --meta_episodes_per_policy_update 24 --meta_episodes_per_learner_batch 12 "
    "--max_pol_iters 10"
)
SMALL_RMDP = (
    "--num_features 16 --steps_per_policy 256 --envs_per_policy 4 --num_epochs 3 --num_minibatches 4 "
    "--max_iters 10"
)
SMALL_CAML = "--num_features 16 --tasks_per_iteration 6 --pool_size 12 --num_rollouts 4 --max_iters 10"
EVALUATE = {
    "rl2": "--instances 120",
    "rmdp": "--episodes 3",
    "persim": "--trajectories 5 --episodes 1 --unseen 3 --horizon 8 --candidates 20 --agents 0,1",
    "caml": "--repeats 2 --updates 2",
}
# name: system, flags of training, whether it is also evaluated
CASES = {
    "rl2_mdp": ("rl2", f"--num_states 4 --num_actions 3 --meta_episode_len 30 {SMALL_RL2}", True),
    "rl2_bandit": ("rl2", f"--environment bandit --num_actions 5 --architecture gru {SMALL_RL2}", True),
    "rl2_warm_snail": (
        "rl2",
        f"--num_states 3 --num_actions 2 --meta_episode_len 20 --warm_start bayes_greedy "
        "--warm_start_iters 4 "
        f"--architecture snail {SMALL_RL2}",
        False,
    ),
    "rl2_box": (
        "rl2",
        f"--environment envs.examples:point_family --meta_episode_len 30 {SMALL_RL2}",
        False,
    ),
    "rmdp_em": ("rmdp", f"--num_agents 12 --num_policies 3 --warm_start_iters 4 {SMALL_RMDP}", False),
    "rmdp_end_to_end": (
        "rmdp",
        f"--environment resource_gathering --num_agents 25 --algorithm end_to_end {SMALL_RMDP}",
        True,
    ),
    "rmdp_cluster": (
        "rmdp",
        f"--environment resource_gathering --num_agents 300 --algorithm cluster {SMALL_RMDP}",
        True,
    ),
    "rmdp_many_agents": (
        "rmdp",
        f"--environment resource_gathering --num_agents 300 --policy_network separate "
        f"--warm_start_iters 3 {SMALL_RMDP}",
        True,
    ),
    "rmdp_own_dynamics": (
        "rmdp",
        f"--environment cart_pole --num_agents 9 --num_policies 3 --warm_start_iters 1 {SMALL_RMDP}",
        True,
    ),
    "persim_mountain_car": ("persim", "--num_agents 40 --max_iters 10 --num_minibatches 20", True),
    "persim_cart_pole_rewards": (
        "persim",
        "--environment cart_pole --dataset pure --num_agents 30 --learn_reward True --max_iters 10 "
        "--num_minibatches 10",
        False,
    ),
    "persim_paper": ("persim", "--num_agents 30 --recipe paper --max_iters 3", False),
    "caml": ("caml", f"--num_medoids 3 {SMALL_CAML}", True),
    "caml_random_start": (
        "caml",
        f"{SMALL_CAML} --medoid_choice random --num_medoids 0 --activation tanh",
        False,
    ),
}
COMPARE = (
    "--budget 20000 --behaviour random --simulator_iters 2 --episodes 2 --num_policies 2 --budgets 3 "
    "--max_episode_len 20"
)
COMPARISONS = ("comparison_cart_pole", "comparison_particle")
COMPARED = ("returns", "curve", "groups", "train_steps", "new_agent_steps", "policies", "facts")
SPEED = {
    "rl2": "--meta_episodes_per_policy_update 480",
    "rmdp": "",
    "persim": "",
    "caml": "",
}
# What is divided: seconds of an iteration, or its like.
SECONDS = {
    "rl2": lambda r: r["iteration_s"],
    "rmdp": lambda r: r["iteration_s"],
    "persim": lambda r: 1 / r["training_samples_per_s"],
    "caml": lambda r: 1 / r["adaptation_steps_per_s"],  # of the processor: an iteration is too short
}


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser("python -m benchmarks.unchanged", description=__doc__)
    parser.add_argument("commit", help="what to compare with")
    parser.add_argument("--rounds", type=int, default=3, help="of measuring each; 0: digests alone")
    parser.add_argument("--only", default="", help="cases and systems whose name begins so")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        subprocess.run(
            ["git", "worktree", "add", "--detach", "-f", other, settings.commit], cwd=ROOT, check=True
        )
        try:
            differences = {}
            budgets = "    budget:" in (other / "comparison" / "config.py").read_text()
            if not budgets:
                print("comparisons are left out: theirs had no --budget", file=sys.stderr, flush=True)
            names = (*CASES, *COMPARISONS) if budgets else tuple(CASES)
            for name in [name for name in names if name.startswith(settings.only)]:
                for ranks in (1, 2):
                    before, after = (
                        outcome(tree, Path(folder) / label, name, ranks)
                        for label, tree in (("before", other), ("after", ROOT))
                    )
                    differences[f"{name}, np {ranks}"] = told = different(before, after)
                    print(f"{name}, np {ranks}: {told or 'the same'}", file=sys.stderr, flush=True)
            speed = {}
            for system in [
                system for system in SPEED if settings.rounds and system.startswith(settings.only)
            ]:
                speed[system] = ratio(other, system, settings.rounds)
                print(f"{system}: {speed[system]}", file=sys.stderr, flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", other], cwd=ROOT, check=True)
    changed = {name: told for name, told in differences.items() if told}
    report = {"compared_with": settings.commit, "runs": len(differences), "different": changed}
    print(json.dumps(report | {"seconds_after_over_before": speed}))
    return int(bool(changed))


def outcome(tree: Path, folder: Path, name: str, ranks: int) -> dict[str, Counter]:
    """Digests of what a case's run has left, evaluation included."""
    if name in COMPARISONS:
        return compared(tree, folder / f"{name}_{ranks}", name.removeprefix("comparison_"), ranks)
    system, flags, evaluated = CASES[name]
    run = folder / f"{name}_{ranks}"
    where = ["--checkpoint_dir", folder, "--model_name", run.name]
    command(tree, ranks, "train", system, *flags.split(), *where)
    rows: Counter = Counter()
    if evaluated:
        json_file = folder / f"{run.name}.json"
        plot = ["--json", json_file, "--plot", folder / f"{run.name}.png"]
        command(tree, ranks, "evaluate", run, *EVALUATE[system].split(), *plot)
        numbers = (
            [row[key] for key in ("mean", "se", "n")] for row in json.loads(json_file.read_text())["rows"]
        )
        rows = Counter(map(digest, numbers))
    save = max(run.glob("step_*"))
    with safe_open(save / "tensors.safetensors", "np") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    tensors = Counter(digest((str(t.dtype), t.shape, t.tobytes())) for t in tensors.values())
    with open(run / "metrics.csv", newline="") as file:
        table = list(csv.DictReader(file))
    columns = [name for name in table[0] if not name.startswith("time/")]
    metrics = Counter(f"{name} {digest([row[name] for row in table])}" for name in columns)
    return {"tensors": tensors, "metrics": metrics, "rows": rows}


def compared(tree: Path, folder: Path, environment: str, ranks: int) -> dict[str, Counter]:
    """Digests of what all methods make of a few agents."""
    agents = folder / "agents.npz"
    folder.mkdir(parents=True)
    command(tree, 1, "envs.populate", environment, "--num_agents", 6, "--out", agents)
    flags = ["--population", agents, "--out", folder, *COMPARE.split()]
    command(tree, ranks, "evaluate", "compare", *flags)
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("cells/*.json")}
    results = (f"{name} {part} {digest(one[part])}" for name, one in found.items() for part in COMPARED)
    return {"results": Counter(results)}


def digest(value) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def different(before: dict[str, Counter], after: dict[str, Counter]) -> dict:
    """What only one of two outcomes has, by part."""
    told = {}
    for part in before:
        gone, come = before[part] - after[part], after[part] - before[part]
        if gone or come:
            told[part] = {"before": sorted(gone.elements()), "after": sorted(come.elements())}
    return told


def command(tree: Path, ranks: int, module: str, *arguments) -> str:
    """Run `python -m module` in a tree; its output."""
    words = [sys.executable, "-m", module, *map(str, arguments)]
    if ranks > 1:
        words = [str(Path(sys.executable).parent / "mpirun"), "-np", str(ranks), *words]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{tree}: {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def ratio(other: Path, system: str, rounds: int) -> dict:
    """Seconds here over seconds there, measured by turns: the median of the rounds, and each of them."""
    ratios = []
    for number in range(rounds):
        seconds = {}
        for tree in (ROOT, other) if number % 2 else (other, ROOT):
            output = command(tree, 1, "benchmarks.throughput", system, *SPEED[system].split())
            seconds[tree] = SECONDS[system](json.loads(output.splitlines()[-1]))
        ratios.append(round(seconds[ROOT] / seconds[other], 3))
    return {"median": statistics.median(ratios), "rounds": ratios}


if __name__ == "__main__":
    sys.exit(main())
