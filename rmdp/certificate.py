"""Whether one of the k policies serves somebody who comes new: fresh agents, and a bound for all.

As in Ge et al. 2025 (arXiv 2503.01885), where a committee of policies is to have a near-optimal one for a
task met later, with high probability.
"""

from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import beta

from common.evaluation import EVALUATION, Row, worst_decile
from common.rollout import play as play_own
from common.runs.seeding import SharedStream, stream
from envs import Problem
from rmdp.config import Config
from rmdp.own_dynamics import try_episodes
from rmdp.policy import Actor, Policies
from rmdp.problem import shares_dynamics
from rmdp.reference import return_range
from rmdp.report import LISTED, preferences, run_row
from rmdp.scoring import play
from rmdp.welfare import utilities

CONFIDENCE = 0.95
METRICS = ("certified_share", "newcomers_worst_decile", "newcomer_utility")
TRIED, MEASURED = 1, 2  # the streams of episodes in which policies are tried, and of those that count


class Certificate(NamedTuple):
    """What m fresh agents get under their best of k policies.

    A utility is how far a return is on the way from an agent's floor to its own best. An agent is covered if
    its utility is 1 - epsilon or more.
    """

    agents: dict[str, np.ndarray]  # [m, ...]
    policy_of: np.ndarray  # [m]
    utility: np.ndarray  # [m]
    epsilon: float
    trials: int

    @property
    def covered(self) -> np.ndarray:
        """Who is, `[m]`; a rounding of returns makes no difference."""
        return self.utility >= 1 - self.epsilon - 1e-6

    @property
    def lower_bound(self) -> float:
        """The share of all agents that are covered is at least this, with a confidence of 95 %."""
        return lower_bound(int(self.covered.sum()), len(self.covered))


def lower_bound(covered: int, tried: int) -> float:
    """The exact lower bound at `CONFIDENCE` of a share of which `covered` of `tried` were seen.

    Clopper & Pearson 1934, one-sided: with any smaller share, so many are seen in less than 5 % of draws.
    """
    return float(beta.ppf(1 - CONFIDENCE, covered, tried - covered + 1)) if covered else 0.0


def certify(config: Config, problem: Problem, policies: Policies, settings: Any, comm: Any) -> Certificate:
    """Draw `settings.certify` fresh agents and give each its best policy; a collective.

    Each agent tries every policy in `trials` episodes, and gets the one with the highest mean; what it is
    worth is measured in `episodes` others. Agents come from a stream that no training draws from. Raises
    UserError where no best return of an agent is known.
    """
    family = problem.family
    draw = getattr(family, "newcomers", family.sample)
    agents = family.check(draw(stream(settings.seed, "tasks", EVALUATION, 1), settings.certify))
    fresh = Problem(problem.environment, family, agents, problem.horizon)
    floor, best = return_range(fresh, settings.reference, settings.seed, comm)
    tried = returns_of_all(policies, fresh, settings.trials, settings.seed, TRIED, comm)
    policy_of = tried.argmax(0)
    if shares_dynamics(fresh):
        measured = returns_of_all(policies, fresh, settings.episodes, settings.seed, MEASURED, comm)
        own = measured[policy_of, np.arange(len(policy_of))]
    else:
        own = returns_of_own(policies, fresh, policy_of, settings.episodes, settings.seed, comm)
    return Certificate(agents, policy_of, utilities(own, floor, best), settings.epsilon, settings.trials)


def returns_of_all(
    policies: Policies, problem: Problem, num_episodes: int, seed: int, purpose: int, comm: Any
) -> np.ndarray:
    """Mean returns `[k, n]` of every policy with every agent; a collective."""
    if not shares_dynamics(problem):
        return try_episodes(policies, problem, num_episodes, seed, comm, purpose).mean(2)
    starts = int(stream(seed, "evaluation", purpose).integers(2**62))
    episodes = play(policies, problem.family, num_episodes, starts, comm)
    chunks = []
    for first in range(0, problem.num_agents, 100):
        agents = problem.rows(slice(first, first + 100))
        chunks.append(episodes.by_episode(problem.family.rewards(episodes.outcome, agents)).mean(1))
    return np.concatenate(chunks, axis=1)


def returns_of_own(
    policies: Policies, problem: Problem, policy_of: np.ndarray, num_episodes: int, seed: int, comm: Any
) -> np.ndarray:
    """Mean returns `[n]` of each agent under its policy `policy_of [n]`; a collective."""
    n, own = problem.num_agents, comm.share(problem.num_agents)
    total = np.zeros(n)
    for e in range(num_episodes if own.stop > own.start else 0):
        rng = SharedStream(stream(seed, "evaluation", MEASURED, e), n, own)
        actor = Actor(policies, problem.family.action_space, policy_of[own])
        with closing(problem.family.make_vec(problem.rows(own), rng)) as env:
            total[own] += play_own(env, actor, problem.horizon).returns
    return comm.allreduce_(total) / num_episodes


def rows(config: Config, found: Certificate) -> list[Row]:
    """Rows on the certificate, on the worst tenth, and on each of up to 1000 fresh agents."""
    m, covered = len(found.utility), int(found.covered.sum())
    facts: dict[str, Any] = {"covered": covered, "lower_bound": found.lower_bound, "epsilon": found.epsilon}
    share = run_row(config, "certified_share", covered / m, **facts, trials=found.trials)
    worst = run_row(config, "newcomers_worst_decile", worst_decile(found.utility))
    listed = []
    for i in range(m if m <= LISTED else 0):
        about: dict[str, Any] = {
            "agent": i,
            "policy": int(found.policy_of[i]),
            "covered": bool(found.covered[i]),
        }
        about |= preferences(found.agents, i)
        listed.append(run_row(config, "newcomer_utility", found.utility[i], **about))
    return [{**share, "n": m}, {**worst, "n": -(-m // 10)}, *listed]


def in_words(rows: Sequence[Row]) -> list[str]:
    """The certificate in two sentences, and how the worst tenth differ; [] if there is none."""
    share = next((r for r in rows if r["metric"] == "certified_share"), None)
    if share is None:
        return []
    worst = next(r for r in rows if r["metric"] == "newcomers_worst_decile")
    enough, sure = f"{1 - share['epsilon']:.0%} of its own best", f"{CONFIDENCE:.0%}"
    lines = [
        f"certificate: {share['covered']:,} of {share['n']:,} fresh agents get {enough}, after trying each "
        f"policy in {share['trials']} episode{'s' * (share['trials'] > 1)};",
        f"with a confidence of {sure}, {share['lower_bound']:.1%} of all agents or more do",
        f"the worst tenth of them get {worst['mean']:.1%} of it",
    ]
    table = numbers([r for r in rows if r["metric"] == "newcomer_utility"])
    utility = np.array([r["mean"] for r in rows if r["metric"] == "newcomer_utility"])
    for name, values in table.items():
        low = values[np.argsort(utility, kind="stable")[: worst["n"]]]
        lines.append(
            f"  {name}: mean {low.mean():.3g} in {low.min():.3g} to {low.max():.3g}; of all "
            f"{values.mean():.3g} in {values.min():.3g} to {values.max():.3g}"
        )
    return lines


def numbers(agents: list[Row]) -> dict[str, np.ndarray]:
    """The parameters of fresh agents as named columns `[m]`, arrays taken apart."""
    known = {"method", "metric", "mean", "se", "n", "environment", "num_agents", "num_policies", "seed"}
    columns = {}
    for name in agents[0].keys() - known - {"agent", "policy", "covered"} if agents else ():
        values = np.array([r[name] for r in agents], float).reshape(len(agents), -1)
        for j, column in enumerate(values.T):
            columns[name if values.shape[1] == 1 else f"{name}[{j}]"] = column
    return dict(sorted(columns.items()))
