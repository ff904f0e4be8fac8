"""How far off-policy evaluation can be trusted: policies of known true value, from bad to good:

    python -m experiments.off_policy_study RUN --table OUT [flags]

RUN is a PerSim run with a learned policy, on an environment whose true dynamics are known. A log is made of
some of its agents, whom the behaviour policies served with some random actions. Judged by this log alone are
the learned policy and the test policy, each with more and more of its actions random. OUT gets a row for each
policy and agent, and what they say together.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from scipy.stats import spearmanr

from common.allocator import keep_freed_memory
from common.config import OUTPUT_FOLDER, POSITIVE, UNIT_INTERVAL, check, check_outputs, parse_flags
from common.errors import UserError
from common.evaluation import as_csv, as_markdown, stored_config
from common.protocols import Actor
from common.runs import checkpoint
from common.runs.seeding import stream
from envs.protocols import Dynamics
from mpi_utils.comm import Comm, guard, set_threads
from persim.config import Config
from persim.data import behaviour
from persim.data.trajectories import Follows, episodes, log_dynamics
from persim.data.transitions import Transitions
from persim.learned_policy import num_outputs
from persim.off_policy.evaluation import Trial, judge
from persim.off_policy.support import Support
from persim.policy import make_actor, stored_policy
from persim.problem import family_of
from persim.simulator import Simulator

PAUSE = 10  # steps between two episodes of an agent in the log


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is logged, and which policies are judged by it."""

    table: Annotated[str, OUTPUT_FOLDER] = ""
    """Folder of policies.csv and table.md."""
    agents: Annotated[int, POSITIVE] = 20
    """Agents of the run that the log is about, the test agents first."""
    episodes: Annotated[int, POSITIVE] = 10
    """Logged episodes of each."""
    epsilon: Annotated[float, UNIT_INTERVAL] = 0.2
    """How often the behaviour policy takes a random action."""
    levels: Annotated[int, POSITIVE] = 10
    """Shares of random actions, from none to all, for each of the two policies."""
    true_episodes: Annotated[int, POSITIVE] = 50
    """Episodes of each agent on the true dynamics that tell a policy's true value."""
    seed: int = 0
    """Draws the log, all actions and the true episodes."""


class PartlyRandom:
    """A policy of which a share `epsilon` of the actions is random, drawn from a stream of its own."""

    def __init__(self, actor: Any, num_actions: int, epsilon: float, seed: int) -> None:
        self.actor, self.num_actions, self.epsilon, self.seed = actor, num_actions, epsilon, seed

    def reset(self, num: int) -> None:
        """Begin `num` rows anew."""
        self.actor.reset(num)
        self.rng = stream(self.seed, "acting")

    def act(
        self,
        observation: np.ndarray,
        reward: np.ndarray | None = None,
        done: np.ndarray | None = None,
        running: np.ndarray | None = None,
    ) -> np.ndarray:
        """Actions [num]."""
        action = self.actor.act(observation, reward, done, running)
        drawn = self.rng.integers(self.num_actions, size=len(action))
        return np.where(self.rng.random(len(action)) < self.epsilon, drawn, action)


class TestPolicy(Follows):
    """The greedy test policy, which knows one agent only and acts for all."""

    __test__ = False

    def __init__(self, trained: Any) -> None:
        self.trained = trained

    def reset(self, num: int) -> None:
        """Begin `num` rows."""
        super().__init__(lambda state, rng: self.trained.test(len(state))(state, rng), stream(0, "acting"))


def main(comm: Comm) -> None:
    """Log, judge all policies, play them on the true dynamics, and write what comes of it."""
    with comm.agree():
        run, *flags = (
            sys.argv[1:] if sys.argv[1:2] and not sys.argv[1].startswith("-") else ["", *sys.argv[1:]]
        )
        settings = parse_flags(
            Settings, flags, "python -m experiments.off_policy_study RUN", show=comm.is_root
        )
        if not run:
            raise UserError("no run given: python -m experiments.off_policy_study RUN --table OUT")
        check(settings)
        check_outputs(settings)
        if not settings.table:
            raise UserError("--table: must not be empty; give a folder")
        stored, state = checkpoint.open_run(run, "persim")
        config, learned = stored_config(Config, stored), stored_policy(state)
        family: Any = family_of(config)
        if learned is None or not isinstance(family, Dynamics) or config.hide or config.learn_reward:
            raise UserError(f"{run}: give a run with --policy_iters, whole states and known rewards")
        trained: Any = behaviour.load(family)
    set_threads(comm)
    keep_freed_memory()
    simulator = Simulator(**state["sizes"])
    simulator.load_state_dict(state["simulator"])
    agents = {k: np.asarray(v)[: settings.agents] for k, v in state["data"]["covariates"].items()}
    n, rng = len(next(iter(agents.values()))), stream(settings.seed, "environment")
    log = log_of(family, agents, trained, settings, rng)
    trial = Trial.of(simulator, config, state["data"], log, family, 1, settings.episodes)
    support = Support(log, trial.seen)
    actor = make_actor(config, family, simulator, np.arange(n), policy="learned", learned=learned)
    bases = {"learned": actor, "test policy": TestPolicy(trained)}
    logged = true_value(
        family,
        agents,
        trained.behaviour(repeated(agents, settings.true_episodes), settings.epsilon),
        settings,
    )
    rows = []
    for base, acts in bases.items():
        for number, epsilon in enumerate(np.linspace(0, 1, settings.levels)):
            policy = PartlyRandom(
                acts, num_outputs(family.action_space), float(epsilon), settings.seed + number
            )
            found, true = judge(trial, policy, support, comm), true_value(family, agents, policy, settings)
            rows += [
                {
                    "policy": base,
                    "epsilon": float(epsilon),
                    "agent": a,
                    "true": true[a],
                    "logged": logged[a],
                    "value": found.value.mean[a],
                    "low": found.value.low[a],
                    "high": found.value.high[a],
                    "unlike": found.unlike[a],
                    "verdict": found.verdicts[a],
                }
                for a in range(n)
            ]
            if comm.is_root:
                print(
                    f"{base}, {epsilon:.2f} random: {true.mean():.1f}, said {found.value.mean.mean():.1f}",
                    flush=True,
                )
    with comm.agree():
        if comm.is_root:
            folder = Path(settings.table)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "policies.csv").write_text(as_csv(rows, digits=6))
            (folder / "table.md").write_text(table := as_markdown(*summary(rows)))
            print(table)


def repeated(agents: dict[str, np.ndarray], times: int) -> dict[str, np.ndarray]:
    """Agents {name: [times * n]} who take turns."""
    return {name: np.tile(values, times) for name, values in agents.items()}


def log_of(
    family: Any, agents: dict[str, np.ndarray], trained: Any, settings: Settings, rng: np.random.Generator
) -> Transitions:
    """Several episodes of each agent {name: [n]} under the behaviour policies, one after another."""
    K, n = settings.episodes, len(next(iter(agents.values())))
    each = {name: np.repeat(values, K) for name, values in agents.items()}
    log = log_dynamics(family, each, trained.behaviour(each, settings.epsilon), rng)
    agent, episode = np.divmod(log.agent, K)
    time = log.time + episode * (family.max_episode_len + PAUSE)
    return dataclasses.replace(
        log, names=[str(a) for a in range(n)], agent=agent, time=time, covariates=agents
    )


def true_value(family: Any, agents: dict[str, np.ndarray], policy: Any, settings: Settings) -> np.ndarray:
    """Mean returns [n] of a policy, an actor or a function of states, on the true dynamics."""
    everyone = repeated(agents, settings.true_episodes)
    total = len(next(iter(everyone.values())))
    actor: Actor = policy if hasattr(policy, "act") else Follows(policy, stream(settings.seed, "acting", 1))
    actor.reset(total)
    start = family.start(stream(settings.seed, "evaluation"), total)
    returns = episodes(family, everyone, start, actor, family.max_episode_len).returns()
    return returns.reshape(settings.true_episodes, -1).mean(0)


def summary(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """What the rows of all policies and agents say together, as a table."""
    column = {name: np.array([r[name] for r in rows]) for name in rows[0]}
    true, logged, value, verdict = (column[name] for name in ("true", "logged", "value", "verdict"))
    covered = (column["low"] <= true) & (true <= column["high"])
    worse, better = true < logged, true > logged
    ranks = [
        spearmanr(value[own], true[own]).statistic
        for own in (column["agent"] == a for a in np.unique(column["agent"]))
        if np.ptp(true[own]) > 0
    ]
    means = [
        [column[name][own].mean() for name in ("value", "true")]
        for own in (
            (column["policy"] == p) & (column["epsilon"] == e)
            for p, e in dict.fromkeys(zip(column["policy"], column["epsilon"], strict=True))
        )
    ]
    lines = [
        ["policies, agents", f"{len(means)}, {len(np.unique(column['agent']))}"],
        ["90 % intervals that contain the true value", f"{100 * covered.mean():.1f} %"],
        ["their mean width", f"{(column['high'] - column['low']).mean():.1f}"],
        ["mean error of the value", f"{np.abs(value - true).mean():.1f}"],
        ["rank correlation with the truth, mean of agents", f"{np.mean(ranks):.3f}"],
        ["of the policies' means", f"{spearmanr(*np.transpose(means)).statistic:.3f}"],
        [
            "truly worse ones called better",
            f"{100 * (verdict[worse] == 'better').mean():.1f} % of {worse.sum()}",
        ],
        ["truly worse ones called worse", f"{100 * (verdict[worse] == 'worse').mean():.1f} %"],
        [
            "truly better ones called better",
            f"{100 * (verdict[better] == 'better').mean():.1f} % of {better.sum()}",
        ],
        ["truly better ones called worse", f"{100 * (verdict[better] == 'worse').mean():.1f} %"],
    ]
    return ["", "result"], lines


if __name__ == "__main__":
    guard(main)
