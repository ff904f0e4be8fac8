"""The paper's protocol: fresh tasks, exploration off, every opponent on the same tasks."""

import dataclasses
from typing import Annotated, Literal

import numpy as np

from common.config import AT_LEAST_ZERO, MAY_BE_EMPTY, POSITIVE, check, parse_flags
from common.errors import UserError
from common.plots import curves_figure
from common.runs.seeding import stream
from rl2.baselines import BANDITS, MDPS, make_opponent
from rl2.baselines import play as play_opponent
from rl2.config import Config
from rl2.policy import RecurrentPolicy
from rl2.rollout import episode_returns, play
from rl2.tasks import task_family

EVALUATION = 2**31  # the iteration number of evaluation's streams, which no training run reaches
CHUNK = (
    100  # instances played together; a rank takes whole chunks, so that numbers do not depend on the ranks
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Evaluate an RL^2 run on fresh tasks, beside classical algorithms on the same tasks."""

    instances: Annotated[int, POSITIVE] = 1000
    """Fresh tasks."""
    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Draws the tasks and all noise; another seed gives other tasks."""
    actions: Literal["greedy", "sample"] = "greedy"
    """Take the most likely action, or sample as in training."""
    opponents: Literal["all", "none"] = "all"
    """Also play the classical algorithms that know these tasks' prior."""
    environment: Annotated[str, MAY_BE_EMPTY] = ""
    """Needed only for a run on a user's own module:factory, which is never taken from a file."""
    json: Annotated[str, MAY_BE_EMPTY] = ""
    """Write the rows here as JSON (default: evaluation.json in the run folder, if it can be written)."""
    plot: Annotated[str, MAY_BE_EMPTY] = ""
    """Write the adaptation curves here as PNG (default: evaluation.png in the run folder, likewise)."""


def parse_settings(flags: list[str], show: bool) -> Settings:
    """Settings from `evaluate`'s flags, checked."""
    settings = parse_flags(Settings, flags, "python -m evaluate RUN", show=show)
    check(settings)
    return settings


def stored_config(stored: dict, settings: Settings) -> Config:
    """The run's configuration from its config.json; a user's factory must be named again."""
    fields = {field.name for field in dataclasses.fields(Config)}
    try:
        config = Config(**{name: value for name, value in stored.items() if name in fields})
    except TypeError as error:
        raise UserError(f"config.json: {error}") from None
    if ":" in config.environment and settings.environment != config.environment:
        raise UserError(
            f"this run trained on {config.environment!r}; name it again: --environment {config.environment}"
        )
    return dataclasses.replace(config, device="cpu")


def evaluate(stored: dict, state: dict, settings: Settings, comm) -> list[dict]:
    """Rows of the policy and its opponents: `return` of the meta-episode and `episode_return` by episode.

    Instances are shared over ranks; the numbers do not depend on how many there are.
    """
    with comm.agree():
        config = stored_config(stored, settings)
    family = task_family(config, comm)
    policy = RecurrentPolicy(config, family.observation_space, family.action_space)
    policy.load_state_dict(state["policy"])

    num_chunks = -(-settings.instances // CHUNK)
    own = comm.share(num_chunks)
    methods = ["rl2"]
    if settings.opponents == "all":
        methods += {"bandit": BANDITS, "tabular_mdp": MDPS}.get(config.environment, ())
    played = {method: [] for method in methods}
    for chunk in range(own.start, own.stop):
        num_tasks = min(CHUNK, settings.instances - chunk * CHUNK)
        tasks = family.sample(stream(settings.seed, "tasks", EVALUATION, chunk), num_tasks)
        for method in methods:
            # The same tasks and the same noise of the environment for every method.
            env = family.make_vec(tasks, rng=stream(settings.seed, "environment", EVALUATION, chunk))
            acting = stream(settings.seed, "acting", EVALUATION, chunk)
            played[method].append(play_one(method, policy, env, tasks, config, settings, acting))
    rows = []
    for method in methods:
        rows += report(method, played[method], settings.instances, own.start * CHUNK, comm)
    return rows


def play_one(method, policy, env, tasks, config, settings, rng):
    """`reward, done [T, N]` of one meta-episode in each of the env's tasks."""
    num_steps = config.meta_episode_len
    if method == "rl2":
        batch = play(policy, env, num_steps, rng, greedy=settings.actions == "greedy")
        return batch.reward.numpy(), batch.done.numpy()
    episode_len = 1 if config.environment == "bandit" else config.max_episode_len
    reward = play_opponent(make_opponent(method, tasks, num_steps, episode_len), env, num_steps, rng)
    done = np.zeros_like(reward)
    done[episode_len - 1 :: episode_len] = 1
    return reward, done


def report(method, played, num_instances, first, comm) -> list[dict]:
    """Rows from this rank's chunks, whose instances begin at `first`; every rank has them."""
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


def row(method, metric, values, **columns) -> dict:
    values = values[np.isfinite(values)]
    n = len(values)
    se = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return {"method": method, "metric": metric, "mean": float(values.mean()), "se": se, "n": n, **columns}


def title(name: str, settings: Settings) -> str:
    """What the figure of the run `name` shows."""
    return f"{name}: {settings.instances} fresh tasks"


def by_episode(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of `episode_return` of each method, in the order of episodes."""
    episodes = {r["method"]: [] for r in rows}
    for r in rows:
        if r["metric"] == "episode_return":
            episodes[r["method"]].append(r)
    return episodes


def show(rows: list[dict]) -> None:
    """Print the table, best first."""
    episodes = by_episode(rows)
    print(f"{'method':22s}{'return':>9s}{'se':>7s}{'first episode':>16s}{'last episode':>15s}")
    for total in sorted((r for r in rows if r["metric"] == "return"), key=lambda r: -r["mean"]):
        curve = [r["mean"] for r in episodes[total["method"]]] or [float("nan")]
        spread = float("nan") if total["se"] is None else total["se"]
        print(f"{total['method']:22s}{total['mean']:9.2f}{spread:7.2f}{curve[0]:16.2f}{curve[-1]:15.2f}")


def plot(rows: list[dict], path, title: str) -> None:
    """Draw the return by episode of every method, with a band of two standard errors."""

    def column(curve, name):
        return [float("nan") if r[name] is None else r[name] for r in curve]

    curves = {m: tuple(column(c, k) for k in ("episode", "mean", "se")) for m, c in by_episode(rows).items()}
    title += ", band of two standard errors"
    curves_figure(
        path, curves, xlabel="episode of the meta-episode", ylabel="return", title=title, highlight="rl2"
    )
