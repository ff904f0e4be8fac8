"""Rows of a run's evaluation, made from scores."""

import numpy as np

from envs.resource_gathering import HOME, SIZE
from rmdp.bounds import speed_optimum, walk_bound
from rmdp.scoring import Episodes, Scores, served_by
from rmdp.tasks import SCALE

LISTED = 1000  # agents up to which each has a row
QUANTILES = 1000  # targets from which the ceiling of a larger population is computed
BARS = 40  # of the histogram of targets


class Report:
    """What a run's policies give its agents; `rows()` are flat dicts."""

    def __init__(self, config, family, agents: dict, state: dict, episodes: Episodes, scores: Scores):
        self.config, self.family, self.agents = config, family, agents
        self.state, self.episodes = state, episodes
        self.scale = SCALE.get(config.environment, 1.0)
        self.own = self.scale * scores.own  # [n]
        self.assigned, self.best, self.soft = (  # [k, E]
            self.scale * sums for sums in (scores.assigned, scores.best, scores.soft)
        )
        self.n, self.k = len(self.own), len(self.assigned)
        self.policy_of = served_by(state["assignment"])  # [n], None before there is an assignment

    def rows(self) -> list[dict]:
        """Rows on welfare, on each policy and, if they are few, on each agent."""
        does = self.walks() if "cell" in self.agents else self.speeds()
        return self.welfare() + self.policy_returns() + does + self.agent_returns()

    def row(self, metric: str, values, method: str = "", **columns) -> dict:
        """One row; `values` are one for each episode, or one number that has no error of its own."""
        values = np.atleast_1d(values)
        n = len(values)
        se = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
        head = {"method": method or self.config.algorithm, "metric": metric, "mean": float(values.mean())}
        names = ("environment", "num_agents", "num_policies", "seed")
        run = {name: getattr(self.config, name) for name in names}
        return head | {"se": se, "n": n} | run | columns

    def welfare(self) -> list[dict]:
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
        rows.append(self.row("worst_decile", worst.mean()) | {"n": len(worst)})
        ceiling = self.ceiling()
        if ceiling:
            rows.append(self.row("ceiling", ceiling, method="ideal"))
            rows.append(self.row("share_of_ceiling", welfare / ceiling))
        return rows

    def ceiling(self) -> float | None:
        """What no k policies exceed: ideal constant speeds, or a bound on walks if all cells count alike."""
        if "cell" in self.agents:
            count = np.bincount(self.agents["cell"], minlength=SIZE * SIZE)
            return walk_bound(self.k) if count.min() == count.max() else None
        target = self.agents["target"]
        if self.n > QUANTILES:  # the exact optimum takes time and memory of n^2
            target = np.quantile(target, (np.arange(QUANTILES) + 0.5) / QUANTILES)
        return speed_optimum(target, self.k, self.family.window) * self.family.max_return / 100

    def members(self, j: int) -> np.ndarray:
        """Agents that policy j serves, by number; all of them as long as nobody is assigned."""
        return np.arange(self.n) if self.policy_of is None else np.flatnonzero(self.policy_of == j)

    def policy_returns(self) -> list[dict]:
        """The mean over the agents that a policy serves, and the return of the worst-off of them."""
        rows = []
        for j in range(self.k):
            members = self.members(j)
            # As long as nobody is assigned, every agent counts with 1/k for each policy.
            weight = len(members) if self.policy_of is not None else self.n / self.k
            row = self.row(
                "policy_return", self.assigned[j] / max(weight, 1e-9), policy=j, agents=len(members)
            )
            if not len(members):
                row |= {"mean": None, "se": None, "n": 0}
            assigned = self.policy_of is not None and len(members)
            rows.append(row | {"worst": float(self.own[members].min()) if assigned else None})
        return rows

    def speeds(self) -> list[dict]:
        """The mean speed of each policy in m/s, and how many agents it serves by target, `low` to `high`."""
        target = self.agents["target"]
        ends = (min(self.family.low, float(target.min())), max(self.family.high, float(target.max())))
        speed = self.episodes.by_episode(self.episodes.outcome)[..., 0] / self.episodes.length
        rows = []
        for j in range(self.k):
            served = np.histogram(target[self.members(j)], BARS, ends)[0].tolist()
            window = dict(zip(("low", "high"), ends, strict=True))
            rows.append(self.row("policy_speed", speed[j], policy=j, **window, served=served))
        return rows

    def walks(self) -> list[dict]:
        """Steps of each policy's walk, the cells it passes, and how many agents it serves in each cell."""
        rows = []
        for j in range(self.k):
            places = self.episodes.seen[: self.episodes.length[j, 0], j, :2]
            path = np.vstack([HOME, places]).astype(int) @ (SIZE, 1)
            served = np.bincount(self.agents["cell"][self.members(j)], minlength=SIZE * SIZE).tolist()
            steps = self.episodes.length[j].astype(float)
            rows.append(self.row("walk", steps, policy=j, cells=path.tolist(), served=served))
        return rows

    def agent_returns(self) -> list[dict]:
        """A row for each agent, with its parameters."""
        if self.n > LISTED:
            return []
        rows = []
        for i, value in enumerate(self.own):
            policy = None if self.policy_of is None else int(self.policy_of[i])
            wants = {name: values[i].item() for name, values in self.agents.items()}
            row = self.row("agent_return", value, agent=i, policy=policy, **wants)
            rows.append(row | {"n": self.assigned.shape[1]})
        return rows
