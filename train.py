"""Train one of the systems:  mpirun -np N python -m train [rl2|rmdp|persim|caml] [flags]

The same command again resumes from the newest valid save in <checkpoint_dir>/<model_name>/; so does --resume
RUN, with the settings in that run folder. --config FILE takes settings by name from a TOML file, or from the
config.json of another run. Sizes are global: more ranks change the speed, not the experiment.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # before a user's own envs.py or common/ beside the command

import caml.config
import caml.learner
import caml.problem
import persim.config
import persim.learner
import persim.problem
import rl2.config
import rl2.learner
import rl2.problem
import rmdp.config
import rmdp.learner
import rmdp.problem
from common import settings_file
from common.allocator import keep_freed_memory
from common.config import from_stored, idle, parse
from common.errors import UserError
from common.runs import run_folder
from mpi_utils import loop
from mpi_utils.comm import Comm, guard, script, set_threads
from rmdp.shared_dynamics import SCALE


@dataclasses.dataclass(frozen=True)
class System:
    """What training needs of one of the four."""

    config: type
    check: Callable[[Any], Any]
    make_problem: Callable[[Any, Comm], Any] | None
    learner: Callable[..., Any]


SYSTEMS = {
    "rl2": System(rl2.config.Config, rl2.config.check_config, rl2.problem.make_problem, rl2.learner.Learner),
    "rmdp": System(
        rmdp.config.Config, rmdp.config.check_config, rmdp.problem.make_problem, rmdp.learner.Learner
    ),
    "persim": System(
        persim.config.Config, persim.config.check_config, persim.problem.make_problem, persim.learner.Learner
    ),
    "caml": System(
        caml.config.Config, caml.config.check_config, caml.problem.make_problem, caml.learner.Learner
    ),
}
# A run folder may be moved; the rest shapes no result.
MAY_CHANGE = (
    "max_iters",
    "policy_iters",
    "checkpoint_interval",
    "eval_interval",
    "checkpoint_dir",
    "model_name",
    "device",
)


def main(comm: Comm) -> None:
    """Parse, build the learner, lock the run folder, resume, train: nothing is made before all is checked."""
    with comm.agree():
        found = settings_of(sys.argv[1:]) if comm.is_root else None  # other ranks may not see the files
    arguments, below = comm.bcast_object(found)
    with comm.agree():
        name, config = parse_arguments(arguments, comm, below=below)
        if comm.is_root:
            run_folder.check(folder(config))
            describe(name, config)
    config = comm.bcast_object(config)  # nor the run folder
    threads = set_threads(comm)
    keep_freed_memory()
    learner = make_learner(name, config, comm)
    with comm.agree():
        held = claim(name, config) if comm.is_root else None

    def remake() -> Any:
        """A learner for the ranks that are left, the first of which holds the folder."""
        nonlocal held
        with comm.agree():
            if comm.is_root and held is None:
                held = run_folder.take_over(folder(config))
        set_threads(comm)
        return make_learner(name, config, comm)

    try:
        if comm.is_root:
            ranks = f"{comm.size} rank{'s' * (comm.size > 1)} with {threads} thread{'s' * (threads > 1)}"
            print(f"{name}, {config.environment}: {ranks}, to {folder(config)}")
            print(*first_lines(name, config, getattr(learner, "problem", None)), sep="\n", flush=True)
        run(name, config, comm, learner, remake)
    finally:
        if held:
            held.release()


def first_lines(name: str, config: Any, problem: Any) -> list[str]:
    """When it saves, how to watch it, and a scale for its returns where the family of tasks knows one."""
    run_dir, every = folder(config), config.checkpoint_interval
    saves = f"a save after every {every} and at the end" if every < config.iterations else "a save at the end"
    iterations = f"{config.iterations} iteration{'s' * (config.iterations > 1)}"
    told = [
        f"{iterations}, {saves}; the same command continues from the last save",
        f"watch: {run_dir}/metrics.csv, or tensorboard --logdir {config.checkpoint_dir} "
        "(extra `tensorboard`)",
    ]
    family: Any = getattr(problem, "family", None)
    agents = getattr(problem, "agents", None)
    if name == "rl2" and hasattr(family, "random_reward"):
        told.append(f"scale: random actions return {family.random_reward * config.meta_episode_len:g}")
    elif name in ("rmdp", "caml") and agents and hasattr(family, "return_range"):
        factor = SCALE.get(config.environment, 1.0) if name == "rmdp" else 1.0
        floor, best = (factor * ends.mean() for ends in family.return_range(agents))
        told.append(f"scale: {floor:.4g} is nothing, {best:.4g} the best for each agent (means over agents)")
    return told


def settings_of(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The other arguments, and the settings that --config or --resume stands for."""
    rest, files = settings_file.split(arguments)
    if "config" in files:
        return rest, settings_file.read(Path(files["config"]))
    if "resume" not in files:
        return rest, {}
    run_dir = Path(files["resume"]).absolute()
    place = {"checkpoint_dir": str(run_dir.parent), "model_name": run_dir.name}
    return rest, run_folder.read_config(run_dir) | place


def parse_arguments(
    arguments: list[str], comm: Comm, *, below: dict[str, Any] | None = None, may_be_idle: bool = False
) -> tuple[str, Any]:
    """The system's name and its checked configuration; only rank 0 prints a help text.

    Settings `below` hold where the arguments say nothing.
    """
    below = below or {}
    configs = {name: system.config for name, system in SYSTEMS.items()}
    how: dict[str, Any] = {"show": comm.is_root, "may_be_idle": may_be_idle, "below": below}
    name, config = parse(configs, "rl2", arguments, "python -m train", __doc__, **how)
    said = [*arguments, *(f"--{setting}" for setting in below)]
    return name, SYSTEMS[name].check(as_before(name, config, said))


def as_before(name: str, config: Any, arguments: list[str]) -> Any:
    """The configuration with which a run goes on that is older than some settings: it keeps what they were.

    So it does where a default has changed since (`OTHER_DEFAULTS`). What the command line says itself stays.
    """
    before = getattr(type(config), "BEFORE", {})
    given = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in arguments}
    if not before or not (folder(config) / "config.json").exists():
        return config
    stored = run_folder.read_config(folder(config))
    missing = {key: value for key, value in before.items() if key not in stored}
    if missing:
        kept = getattr(type(config), "OTHER_DEFAULTS", ())
        missing |= {key: stored[key] for key in kept if key in stored}
    missing = {key: value for key, value in missing.items() if key not in given}
    return dataclasses.replace(config, **missing) if stored.get("system") == name else config


def claim(name: str, config: Any) -> run_folder.Lock:
    """Lock the run folder for this process; refuse one that holds another experiment."""
    held = run_folder.lock(folder(config))
    try:
        describe(name, config)
    except BaseException:
        held.release()
        raise
    return held


def describe(name: str, config: Any) -> dict[str, Any]:
    """What config.json is to hold; refuse a run folder whose own says otherwise."""
    run_dir, description = folder(config), {"system": name, **dataclasses.asdict(config)}
    if (run_dir / "config.json").exists():
        stored = run_folder.read_config(run_dir)
        if stored.get("system") == name:  # what it lacks did not exist then; what was renamed is the same
            before = from_stored(type(config), stored)
            # The learner compares data themselves: they may lie elsewhere now, and not there any more.
            both = set(getattr(before, "by_content", ())) & set(getattr(config, "by_content", ()))
            given = {field: getattr(config, field) for field in both}
            before = SYSTEMS[name].check(dataclasses.replace(before, **given))
            stored = {"system": name, **dataclasses.asdict(before)}
        ignored = (*MAY_CHANGE, *idle(config), *idle(before))
        if differences := run_folder.config_differences(stored, description, ignore=ignored):
            raise UserError(
                f"{run_dir} holds another experiment ({'; '.join(differences)}): "
                "give the same settings or another --model_name"
            )
    return description


def run(
    name: str, config: Any, comm: Comm, learner: Any = None, remake: Callable[[], Any] | None = None
) -> bool:
    """Train in a claimed run folder, from its newest valid save; True when all iterations are done.

    `remake` gives a learner to go on with when a rank was lost.
    """
    return loop.run(
        learner or make_learner(name, config, comm),
        comm,
        folder(config),
        iterations=config.iterations,
        checkpoint_interval=config.checkpoint_interval,
        settings={"system": name, **dataclasses.asdict(config)},
        remake=remake,
    )


def make_learner(name: str, config: Any, comm: Comm) -> Any:
    """The system's learner of the problem that the settings describe; a collective."""
    system = SYSTEMS[name]
    problem = () if system.make_problem is None else (system.make_problem(config, comm),)
    return system.learner(config, comm, *problem)


def folder(config: Any) -> Path:
    """The run folder."""
    return Path(config.checkpoint_dir) / config.model_name


def command() -> None:
    """The command `pmrl-train`, which is `python -m train`."""
    script(main)


if __name__ == "__main__":
    guard(main)
