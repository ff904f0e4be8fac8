"""Rows of a run's evaluation, made from scores."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from common.errors import UserError
from common.evaluation import Row, row
from envs import Problem
from envs.resource_gathering import HOME, NUM_CELLS, SIZE
from rmdp.assignment import policies_of
from rmdp.bounds import speed_optimum, walk_bound
from rmdp.cards import Served
from rmdp.config import Config
from rmdp.fair_walks import FAIR_WALKS, fair_optimum
from rmdp.scoring import Episodes, Scores
from rmdp.shared_dynamics import SCALE
from rmdp.welfare import parse_welfare, utilities

LISTED = 1000  # agents up to which each has a row
QUANTILES = 1000  # targets from which the upper bound of a larger population is computed
BARS = 40  # of the histogram of targets


def run_row(config: Config, metric: str, values: Any, method: str = "", **columns: Any) -> Row:
    """One row; `values` are one for each episode, or one number that has no error of its own."""
    run = {name: getattr(config, name) for name in ("environment", "num_agents", "num_policies", "seed")}
    return row(method or config.algorithm, metric, values, **run, **columns)


def preferences(agents: dict[str, np.ndarray], i: int) -> dict[str, Any]:
    """The parameters of agent i as columns of a row."""
    return {name: values[i].tolist() for name, values in agents.items()}


class Report:
    """The returns of a run's policies for agents that share dynamics; `rows()` are flat dicts."""

    def __init__(
        self,
        config: Config,
        problem: Problem,
        state: dict,
        episodes: Episodes,
        scores: Scores,
        welfares: Iterable[str] = (),
    ):
        self.config, self.family, self.agents = config, problem.family, problem.rows(slice(None))
        self.state, self.episodes, self.welfares = state, episodes, welfares
        self.scale = SCALE.get(config.environment, 1.0)
        self.own = self.scale * scores.own  # [n]
        self.assigned = self.scale * scores.assigned  # [k, E]
        self.best, self.soft = self.scale * scores.best, self.scale * scores.soft  # [k, E]
        self.n, self.k = len(self.own), len(self.assigned)
        self.policy_of = policies_of(state["assignment"])  # [n], None before there is an assignment

    def rows(self) -> list[Row]:
        """Rows on welfare, on each policy and, if they are few, on each agent."""
        behaviour = self.walks() if "cell" in self.agents else self.speeds()
        return self.welfare() + self.policy_returns() + behaviour + self.agent_returns()

    def served(self) -> Served:
        """What cards tell; only where agents are assigned."""
        assert self.policy_of is not None
        unit, most = " (times 100)" if self.scale != 1 else "", self.scale * self.family.max_return
        return Served(
            self.config,
            self.family,
            self.agents,
            self.policy_of,
            self.own,
            self.policy_returns(),
            unit,
            most,
        )

    def row(self, metric: str, values: Any, method: str = "", **columns: Any) -> Row:
        """One row of this run."""
        return run_row(self.config, metric, values, method, **columns)

    def welfare(self) -> list[Row]:
        """What the whole population gets, and what it could."""
        welfare = self.assigned.sum(0) / self.n
        rows = [self.row("social_welfare", welfare)]
        if "logits" in self.state["assignment"]:
            rows.append(self.row("expected_welfare", self.soft.sum(0) / self.n))
        training = self.state.get("welfare", {"average_weight": 0.0})  # shipped examples hold none
        if training["average_weight"]:
            average = training["average"] / training["average_weight"]
            rows.append(self.row("training_welfare", self.scale * average))
        rows.append(self.row("best_policy_welfare", self.best.sum(0) / self.n))
        worst = np.sort(self.own)[: -(-self.n // 10)]
        rows.append({**self.row("worst_decile", worst.mean()), "n": len(worst)})
        if bound := self.upper_bound():
            rows.append(self.row("upper_bound", bound, method="ideal"))
            rows.append(self.row("share_of_upper_bound", welfare / bound))
        own, said = self.own / self.scale, self.state.get("weights")
        return rows + utility_rows(self.config, self.family, self.agents, own, said, self.welfares)

    def upper_bound(self) -> float | None:
        """What no k policies exceed: ideal constant speeds, or a bound on walks if all cells count alike."""
        if "cell" in self.agents:
            count = np.bincount(self.agents["cell"], minlength=SIZE * SIZE)
            return walk_bound(self.k) if count.min() == count.max() else None
        target = self.agents["target"]
        if self.n > QUANTILES:  # the exact optimum takes time and memory of n^2
            target = np.quantile(target, (np.arange(QUANTILES) + 0.5) / QUANTILES)
        return speed_optimum(target, self.k, self.family.window) * self.family.max_return / 100

    def agents_of(self, j: int) -> np.ndarray:
        """Numbers of the agents assigned to policy j; all of them as long as no agent is assigned."""
        return np.arange(self.n) if self.policy_of is None else np.flatnonzero(self.policy_of == j)

    def policy_returns(self) -> list[Row]:
        """The mean over the agents assigned to a policy, and the return of the worst-off of them."""
        rows = []
        for j in range(self.k):
            agents = self.agents_of(j)
            # As long as no agent is assigned, every agent counts with 1/k for each policy.
            weight = len(agents) if self.policy_of is not None else self.n / self.k
            returns = self.assigned[j] / weight if len(agents) else []
            worst = float(self.own[agents].min()) if self.policy_of is not None and len(agents) else None
            rows.append(self.row("policy_return", returns, policy=j, agents=len(agents), worst=worst))
        return rows

    def speeds(self) -> list[Row]:
        """The mean speed of each policy in m/s, and a histogram, `low` to `high`, of its agents' targets."""
        target = self.agents["target"]
        low = min(self.family.low, float(target.min()))
        high = max(self.family.high, float(target.max()))
        speed = self.episodes.by_episode(self.episodes.outcome)[..., 0] / self.episodes.length
        rows = []
        for j in range(self.k):
            assigned = np.histogram(target[self.agents_of(j)], BARS, (low, high))[0].tolist()
            rows.append(self.row("policy_speed", speed[j], policy=j, low=low, high=high, assigned=assigned))
        return rows

    def walks(self) -> list[Row]:
        """Steps of each policy's walk, the cells it passes, and how many of its agents live in each cell."""
        rows = []
        for j in range(self.k):
            places = self.episodes.seen[: self.episodes.length[j, 0], j, :2]
            path = np.vstack([HOME, places]).astype(int) @ (SIZE, 1)
            assigned = np.bincount(self.agents["cell"][self.agents_of(j)], minlength=SIZE * SIZE).tolist()
            steps = self.episodes.length[j].astype(float)
            rows.append(self.row("walk", steps, policy=j, cells=path.tolist(), assigned=assigned))
        return rows

    def agent_returns(self) -> list[Row]:
        """A row for each agent, with its preference."""
        if self.n > LISTED:
            return []
        rows = []
        for i, value in enumerate(self.own):
            policy = None if self.policy_of is None else int(self.policy_of[i])
            own = self.row("agent_return", value, agent=i, policy=policy, **preferences(self.agents, i))
            rows.append({**own, "n": self.assigned.shape[1]})
        return rows


def utility_rows(
    config: Config,
    family: Any,
    agents: dict[str, np.ndarray],
    own: np.ndarray,
    said: Any,
    welfares: Iterable[str],
) -> list[Row]:
    """The welfare that training maximised and `welfares`, of utilities in percent, from returns `own [n]`.

    `said` is the range of returns that the run was trained with, if any. The least and the geometric mean of
    walks have their optimum beside them, where it is known.
    """
    rows = []
    for name in dict.fromkeys((config.welfare, *welfares)):
        if not (welfare := parse_welfare(name)):
            continue
        floor, best = (np.asarray(said[end]) for end in ("floor", "best")) if said else stated(family, agents)
        value = 100 * welfare.value(utilities(own, floor, best))
        rows.append({**run_row(config, f"welfare_{name}", value), "n": len(own)})
        if "cell" in agents and np.array_equal(np.sort(agents["cell"]), np.arange(NUM_CELLS)):
            if config.num_policies in FAIR_WALKS.get(name, {}):
                optimum = 100 * fair_optimum(config.num_policies, name)
                rows.append(run_row(config, f"optimum_{name}", optimum, method="ideal"))
    return rows


def stated(family: Any, agents: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Floor and best return `[n]` of agents, as the family states them; raises UserError."""
    if not hasattr(family, "return_range"):
        raise UserError(
            f"--welfare: {family.name} states no best return of an agent, nor was the run given any"
        )
    return family.return_range(agents)


def welfare_rows(config: Config, returns: np.ndarray, method: str = "", **columns: Any) -> list[Row]:
    """The mean over all agents, and over the tenth with the lowest means, from returns `[n, E]`."""
    worst = np.argsort(returns.mean(1))[: -(-len(returns) // 10)]
    return [
        run_row(config, "social_welfare", returns.mean(0), method, **columns),
        run_row(config, "worst_decile", returns[worst].mean(0), method, **columns),
    ]


def own_dynamics_rows(
    config: Config,
    problem: Problem,
    policy_of: np.ndarray,
    returns: np.ndarray,
    said: Any = None,
    welfares: Iterable[str] = (),
) -> list[Row]:
    """Such rows from returns `[k, n, E]` of every policy with every agent, whose own are `policy_of [n]`."""
    n = len(policy_of)
    each = returns[policy_of, np.arange(n)]  # [n, E]
    best = returns[returns.mean(2).argmax(0), np.arange(n)]
    welfare, worst = welfare_rows(config, each)
    rows = [welfare, run_row(config, "best_policy_welfare", best.mean(0)), worst]
    rows += utility_rows(config, problem.family, problem.rows(slice(None)), each.mean(1), said, welfares)
    for j in range(config.num_policies):
        own = each[policy_of == j]
        means, lowest = (own.mean(0), float(own.mean(1).min())) if len(own) else ([], None)
        rows.append(run_row(config, "policy_return", means, policy=j, agents=len(own), worst=lowest))
    for i in range(n if n <= LISTED else 0):
        columns = {"agent": i, "policy": int(policy_of[i]), **preferences(problem.rows(slice(None)), i)}
        rows.append(run_row(config, "agent_return", each[i], **columns))
    return rows
