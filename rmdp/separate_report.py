"""Rows of an evaluation where agents have dynamics of their own: every policy tries every agent."""

import numpy as np

from common.runs.seeding import SharedStream, stream
from rmdp.policy import Policies
from rmdp.tasks import separate_family
from rmdp.worlds import try_all

LISTED = 1000  # agents up to which each has a row


def evaluate(config, state: dict, settings, comm) -> list[dict]:
    """Rows on welfare, on each policy and, up to 1000 of them, on each agent; a collective.

    Each agent has `settings.episodes` starts, the same for all policies. Agents are shared over ranks.
    """
    family = separate_family(config, comm)
    with comm.agree():
        agents = {name: np.asarray(values) for name, values in state["agents"].items()}
        policies = Policies(config, family.observation_space, family.action_space)
        policies.load_state_dict(state["policy"])
    policy_of = np.asarray(state["assignment"]["policy_of"])
    n, k, episodes = len(policy_of), config.num_policies, settings.episodes
    returns, own = np.zeros((k, n, episodes)), comm.share(n)
    for e in range(episodes):  # streams of their own: how much one draws depends on the data
        rng = stream(settings.seed, "evaluation", 0, e)
        parameters = {name: values[own] for name, values in agents.items()}
        returns[:, own, e], _ = try_all(policies, family, parameters, SharedStream(rng, n, own))
    comm.allreduce_(returns)

    def row(metric: str, values, **columns) -> dict:
        """One row; `values` are one for each episode."""
        se = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        head = {"method": config.algorithm, "metric": metric, "mean": float(values.mean()), "se": se}
        names = ("environment", "num_agents", "num_policies", "seed")
        return head | {"n": len(values)} | {name: getattr(config, name) for name in names} | columns

    each = returns[policy_of, np.arange(n)]  # [n, E]
    best = returns[returns.mean(2).argmax(0), np.arange(n)]
    mean = each.mean(1)
    worst = np.argsort(mean)[: -(-n // 10)]
    rows = [row("social_welfare", each.mean(0)), row("best_policy_welfare", best.mean(0))]
    rows.append(row("worst_decile", each[worst].mean(0)))
    for j in range(k):
        members = policy_of == j
        if members.any():
            values = each[members]
            rows.append(row("policy_return", values.mean(0), policy=j, agents=int(members.sum())))
            rows[-1]["worst"] = float(values.mean(1).min())
        else:
            rows.append(row("policy_return", np.zeros(1), policy=j, agents=0, worst=None))
            rows[-1] |= {"mean": None, "se": None, "n": 0}
    for i in range(n if n <= LISTED else 0):
        wants = {name: values[i].tolist() for name, values in agents.items()}
        rows.append(row("agent_return", each[i], agent=i, policy=int(policy_of[i])) | wants)
    return rows
