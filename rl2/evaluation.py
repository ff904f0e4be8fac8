"""The paper's protocol: fresh tasks, exploration off, every baseline on the same tasks."""

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from gymnasium.spaces import Discrete

from common import evaluation as shared
from common import film, protocols
from common.baselines import RandomActions, train
from common.config import AT_LEAST_ZERO, POSITIVE, Within, without_effect
from common.errors import UserError
from common.evaluation import EVALUATION, OF_BASELINES, EvaluationSettings, Row, row
from common.plots import curves_figure
from common.progress import at
from common.runs.seeding import stream
from envs.problem import Problem
from mpi_utils.comm import Comm
from rl2 import export
from rl2.baselines import BANDITS, MDPS, make_baseline
from rl2.belief import BeliefPolicy, make_policy
from rl2.config import Config
from rl2.learner import Learner
from rl2.policy import Actor, RecurrentPolicy
from rl2.problem import hidden, stored_problem
from rl2.rollout import episode_returns, play_meta_episodes

# Instances played together; a rank takes whole chunks, so that numbers do not depend on the ranks.
CHUNK = 100
ORACLE, VARIBAD = "oracle_policy", "varibad"  # the run itself, where it sees the task, or is no RL²
RANDOM, ONE = "random", "one_policy"  # baselines where no classical ones are known


@dataclasses.dataclass(frozen=True)
class Settings(EvaluationSettings):
    """Evaluate an RL^2 run on fresh tasks, beside classical algorithms on the same tasks."""

    ALIASES: ClassVar[dict[str, str]] = {"opponents": "baselines"}

    instances: Annotated[int, POSITIVE] = 1000
    """Fresh tasks."""
    episodes: Annotated[int, AT_LEAST_ZERO] = 0
    """Episodes in each task, also more than in training (0: a meta-episode as in training)."""
    actions: Literal["greedy", "sample"] = "greedy"
    """Take the most likely action, or sample as in training."""
    baselines: Literal["all", "none"] = "all"
    """Also play the classical algorithms that know these tasks' prior; where none is known, random actions
    and one policy without memory, which is trained first."""
    one_policy_share: Annotated[float, Within(0, 1, above=True), OF_BASELINES] = 0.1
    """Iterations for which that policy is trained, as a share of the run's."""

    FILMED: ClassVar[tuple[str, ...]] = (*EvaluationSettings.FILMED, "episodes", "actions")


def parse_settings(flags: list[str], show: bool) -> Settings:
    """Settings from `evaluate`'s flags, checked."""
    return shared.parse_settings(Settings, flags, show)


def stored_config(stored: dict, environment: str) -> Config:
    """The run's configuration from its config.json; a user's factory must be named again."""
    return dataclasses.replace(shared.stored_config(Config, stored, environment), device="cpu")


def stored_policy(config: Config, state: dict, problem: Problem) -> RecurrentPolicy | BeliefPolicy:
    """The policy of a save."""
    family = problem.family
    policy = make_policy(config, family.observation_space, family.action_space)
    policy.load_state_dict(state["policy"])
    return policy


def evaluate(stored: dict, state: dict, settings: Settings, comm: Comm) -> list[Row]:
    """Rows of the policy and its baselines: `return` of the meta-episode and `episode_return` by episode.

    Instances are shared over ranks; the numbers do not depend on how many there are. A collective.
    """
    with comm.agree():
        config = stored_config(stored, settings.environment)
        classical = {"bandit": BANDITS, "tabular_mdp": MDPS}.get(config.environment)
        if classical and settings.one_policy_share != Settings.one_policy_share:
            raise UserError(without_effect("one_policy_share", "tasks whose prior is not known"))
        if settings.export:
            export.check(config)
    problem = stored_problem(config, state, comm)
    policy = stored_policy(config, state, problem)
    with comm.agree():
        episodes, num_steps = length(config, settings, problem)

    num_chunks = -(-settings.instances // CHUNK)
    own = comm.share(num_chunks)
    unseen = hidden(problem)
    name = ORACLE if config.see_task else VARIBAD if config.architecture == "varibad" else "rl2"
    methods = [name]
    if settings.baselines == "all":
        methods += classical or [RANDOM, ONE]
    alone, alone_steps = None, 0
    if ONE in methods:
        iterations = max(1, round(settings.one_policy_share * stored.get("iteration", config.max_iters)))
        alone, alone_steps = one_policy(config, unseen, iterations, comm)
    played: dict[str, list] = {method: [] for method in methods}
    for chunk in range(own.start, own.stop):
        num_tasks = min(CHUNK, settings.instances - chunk * CHUNK)
        tasks = problem.sample(stream(settings.seed, "tasks", EVALUATION, chunk), num_tasks)
        for method in methods:
            at(f"{method}, instances {chunk * CHUNK} and on of {settings.instances}")
            # The same tasks and the same noise of the environment for every method.
            dynamics = stream(settings.seed, "environment", EVALUATION, chunk)
            rng = stream(settings.seed, "acting", EVALUATION, chunk)
            actor: protocols.Actor
            acting = {name: policy, ONE: alone}.get(method)
            if acting is not None:
                sampled = settings.actions == "sample"
                actor = Actor(acting, problem.family.action_space, rng if sampled else None)
            elif not classical:
                actor = RandomActions(problem.family.action_space, rng)
            else:
                rng.integers(2**31)  # it was the environment's seed when the tables in results/ were made
                actor = make_baseline(method, tasks, num_steps, problem.horizon, rng=rng)
            family = (problem if method == name else unseen).family
            with closing(family.make_vec(tasks, dynamics)) as env:
                played[method].append(play_meta_episodes(env, actor, num_steps, episodes))
    rows = []
    for method in methods:
        rows += report(method, played[method], settings.instances, own.start * CHUNK, comm)
    if alone:
        rows.append(row(ONE, "env_steps", alone_steps, share_of_steps=settings.one_policy_share))
    with comm.agree():
        if settings.export and comm.is_root:
            steps = state.get("env_steps")  # counted where meta-episodes end at different times
            export.export(config, policy, problem.family, rows, settings, stored.get("iteration"), steps)
    return rows


def scene(stored: dict, state: dict, settings: Settings) -> film.Scene:
    """The tasks of the tables' first chunk, or some of them, each with all its episodes; for one rank."""
    config = stored_config(stored, settings.environment)
    problem = stored_problem(config, state, Comm())
    episodes, num_steps = length(config, settings, problem)
    num_steps = settings.video_steps or num_steps
    tasks = problem.sample(stream(settings.seed, "tasks", EVALUATION, 0), CHUNK)
    numbers = np.arange(film.MOST_AGENTS)
    if settings.video_agents:
        numbers = film.chosen(settings.video_agents, CHUNK, "the film")
    tasks = {name: values[numbers] for name, values in tasks.items()}
    rng = stream(settings.seed, "acting", EVALUATION, 0) if settings.actions == "sample" else None
    actor = Actor(stored_policy(config, state, problem), problem.family.action_space, rng)
    env = problem.family.make_vec(tasks, stream(settings.seed, "environment", EVALUATION, 0))
    labels = [film.label(f"task {number}", tasks, row) for row, number in enumerate(numbers)]
    return film.Scene(problem.family, env, actor, labels, num_steps, episodes)


def length(config: Config, settings: Settings, problem: Problem) -> tuple[int, int]:
    """Episodes in each task, 0 if they are not counted, and the most steps that are played."""
    if not settings.episodes:
        return config.episodes, config.meta_episode_len
    if not getattr(problem.family, "declares_length", True):
        raise UserError(
            f"--episodes: {config.environment} does not say how long episodes last; give it an attribute "
            "max_episode_len"
        )
    num_steps = settings.episodes * problem.horizon
    if config.architecture in ("snail", "transformer") and num_steps > config.meta_episode_len:
        raise UserError(
            f"--episodes {settings.episodes}: they may last {num_steps} steps, and this "
            f"{config.architecture} remembers {config.meta_episode_len}"
        )
    return settings.episodes, num_steps


def one_policy(
    config: Config, problem: Problem, iterations: int, comm: Comm
) -> tuple[RecurrentPolicy | BeliefPolicy, int]:
    """The run's settings without a memory, trained for some iterations, and its steps; a collective."""
    cut = dataclasses.replace(
        config, architecture="none", see_task=False, max_iters=iterations, eval_interval=0
    )
    if isinstance(problem.family.observation_space, Discrete):  # where the task is shown, there are vectors
        cut = dataclasses.replace(cut, normalise_observations=False)
    learner = Learner(cut, comm, problem)
    train(learner, iterations, ONE)
    return learner.policy, learner.env_steps


def report(method: str, played: list, num_instances: int, first: int, comm: Comm) -> list[Row]:
    """Rows from this rank's chunks, `reward, done [T, N]` each, whose instances begin at `first`; every rank
    has them.
    """
    num_episodes = max((int(done.sum(0).max()) for _, done in played), default=0)
    num_episodes = int(comm.allreduce_(np.array([num_episodes]), op="max")[0])
    returns = np.zeros((1 + num_episodes, num_instances))
    for reward, done in played:
        columns = slice(first, first + reward.shape[1])
        returns[0, columns] = reward.sum(0, dtype=np.float64)
        returns[1:, columns] = episode_returns(reward, done, num_episodes)
        first = columns.stop
    comm.allreduce_(returns)
    rows = [row(method, "return", returns[0])]
    return rows + [row(method, "episode_return", returns[e], episode=e) for e in range(1, 1 + num_episodes)]


def title(name: str, settings: Settings) -> str:
    """What the figure of the run `name` shows."""
    return f"{name}: {settings.instances} fresh tasks"


def by_episode(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of `episode_return` of each method, in the order of episodes."""
    episodes: dict[str, list[Row]] = {r["method"]: [] for r in rows}
    for r in rows:
        if r["metric"] == "episode_return":
            episodes[r["method"]].append(r)
    return episodes


def show(rows: list[Row]) -> None:
    """Print the table, best first."""
    episodes = by_episode(rows)
    print(f"{'method':22s}{'return':>9s}{'se':>7s}{'first episode':>16s}{'last episode':>15s}")
    for total in sorted((r for r in rows if r["metric"] == "return"), key=lambda r: -r["mean"]):
        curve = [r["mean"] for r in episodes[total["method"]]] or [float("nan")]
        spread = float("nan") if total["se"] is None else total["se"]
        print(f"{total['method']:22s}{total['mean']:9.2f}{spread:7.2f}{curve[0]:16.2f}{curve[-1]:15.2f}")
    for r in (r for r in rows if r["metric"] == "env_steps"):
        share = f"{r['share_of_steps']:.0%} of the run's (--one_policy_share)"
        print(f"{r['method']}: no memory, trained for {r['mean']:,.0f} steps, {share}")


def plot(rows: list[Row], path: str | Path, title: str) -> None:
    """Draw the return by episode of every method, with a band of two standard errors."""

    def column(curve: list[Row], name: str) -> np.ndarray:
        return np.array([float("nan") if r[name] is None else r[name] for r in curve])

    curves = {
        method: (column(curve, "episode"), column(curve, "mean"), column(curve, "se"))
        for method, curve in by_episode(rows).items()
    }
    title += ", band of two standard errors"
    highlight = rows[0]["method"] if rows else ""  # the run itself comes first
    curves_figure(
        path, curves, xlabel="episode of the meta-episode", ylabel="return", title=title, highlight=highlight
    )
