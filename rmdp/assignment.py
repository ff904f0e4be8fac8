"""Which policy each agent is assigned to, and the paper's ways to find out.

A hard assignment is an array `[n]` of policy numbers, a soft one a matrix `[k, n]` whose columns sum to 1.
A rank holds the columns of its own agents.
"""

import warnings
from typing import Any

import numpy as np
import torch

from common.optim import load_optimiser_state, make_adamw, optimiser_state
from rmdp.agent_shard import AgentShard


class Assignment:
    """The assignment of a rank's own agents to k policies: hard, soft, or none yet.

    `policy_of [n]` are the policies of all agents at first, None if there is no assignment yet; then every
    agent counts with 1/k for each policy. `logits [k, n]` make it soft, a softmax that is trained with
    `learning_rate`, until the first `expectation_step`.
    """

    def __init__(
        self,
        comm: Any,
        shard: AgentShard,
        num_policies: int,
        policy_of: np.ndarray | None,
        logits: np.ndarray | None = None,
        learning_rate: float = 0.0,
    ):
        self.comm, self.shard, self.k = comm, shard, num_policies
        self.policy_of = None if policy_of is None else policy_of[shard.slice]
        self.learning_rate = learning_rate
        self.logits: torch.Tensor | None = None
        if logits is not None:
            self.soften(torch.from_numpy(logits[:, shard.slice]))

    def soften(self, logits: torch.Tensor) -> None:
        """Assign the own agents by a softmax of `logits [k, own]`, to be trained."""
        self.logits = logits.clone(memory_format=torch.contiguous_format).requires_grad_()
        self.optimiser = make_adamw([self.logits], self.learning_rate, eps=1e-8)

    @property
    def soft(self) -> bool:
        """Whether agents are assigned by probabilities."""
        return self.logits is not None

    def weights(self) -> torch.Tensor:
        """The assignment as a matrix `[k, own]` whose columns sum to 1."""
        if self.logits is not None:
            return torch.softmax(self.logits, dim=0)
        if self.policy_of is None:
            return torch.full((self.k, self.shard.num), 1.0 / self.k)
        return torch.from_numpy(one_hot(self.policy_of, self.k))

    def everyone(self) -> np.ndarray:
        """The policies `[n]` of all ranks' agents, the likeliest if soft; a collective.

        Raises ValueError as long as no agent is assigned.
        """
        policy_of = policies_of(self.state_dict())
        if policy_of is None:
            raise ValueError("no agent is assigned to a policy yet")
        return policy_of

    def expectation_step(self, utility: np.ndarray, may_empty: bool = False) -> int:
        """The E-step of EM by the own agents' returns `utility [k, own]`; how many agents changed policy.

        The first one after a soft assignment makes that hard: each agent gets its likeliest policy, which is
        counted as no change. A collective.
        """
        before, was_soft = self.policy_of, self.soft
        if before is None:
            raise ValueError("no agent is assigned to a policy yet, so that none can move")
        if self.logits is not None:
            utility, self.logits = self.logits.detach().numpy(), None
        self.policy_of = expectation_step(utility, before, self.comm, self.shard.slice.start, may_empty)
        return 0 if was_soft else self.count(np.not_equal(before, self.policy_of))

    def cluster(self, features: np.ndarray, seed: int) -> None:
        """Assign the agents by K-means of `features [n, F]`, the same on all ranks; a collective."""
        policy_of = np.zeros(self.shard.total, np.int64)
        with self.comm.agree():
            if self.comm.is_root:
                policy_of = by_rewards(features, self.k, seed)
        self.policy_of = self.comm.bcast_(policy_of)[self.shard.slice]

    def count(self, own: np.ndarray) -> int:
        """How many agents of all ranks a condition `own [own]` holds for; a collective."""
        return int(self.comm.allreduce_(np.array([own.sum()]))[0])

    def weigh(self, advantages: list[np.ndarray], shape: tuple[int, ...]) -> torch.Tensor:
        """Sums of `shape [k, B]` over the own agents of `[k, B, chunk]`, weighted by the soft assignment.

        They carry the graph that `learn` goes back along.
        """
        weights, total = self.weights(), torch.zeros(shape)
        for agents, advantage in zip(self.shard.chunks, advantages, strict=True):
            total = total + weighted_sum(torch.from_numpy(advantage), weights[:, agents])
        return total

    def learn(self, weighed: torch.Tensor, slope: np.ndarray) -> None:
        """One step of the logits along PPO's loss, of which `slope [k, B]` is the derivative by `weighed`."""
        self.optimiser.zero_grad()
        if self.shard.num:
            weighed.backward(torch.from_numpy(slope))
        self.optimiser.step()

    def state_dict(self) -> dict:
        """The assignment of all ranks' agents; a collective."""
        gather = self.shard.gather
        if self.logits is not None:
            moments = optimiser_state(self.optimiser)
            moments = {name: gather(value, axis=1) for name, value in moments.items()}
            return {"logits": gather(self.logits.detach(), axis=1), "moments": moments}
        return {} if self.policy_of is None else {"policy_of": gather(torch.from_numpy(self.policy_of))}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        cut = self.shard.cut
        if "policy_of" in state:
            self.policy_of = cut(state["policy_of"]).numpy().copy()
        if "logits" not in state:
            self.logits = None
            return
        self.soften(cut(state["logits"], axis=1))
        moments = {name: cut(value, axis=1) for name, value in state["moments"].items()}
        load_optimiser_state(self.optimiser, moments)


def expectation_step(
    utility: np.ndarray, policy_of: np.ndarray, comm: Any, first: int = 0, may_empty: bool = False
) -> np.ndarray:
    """The E-step: each agent moves to the policy that is best for it, and no policy is left empty.

    `utility [k, n]` are returns of this rank's agents under each policy, `policy_of [n]` their present
    policies, `first` the number of the rank's first agent. A policy that would lose all its agents keeps the
    one that gains least by leaving, unless it `may_empty`. No agent ever moves to a policy that is worse for
    it. Returns the new policies `[n]`. A collective.
    """
    num_policies, num_agents = utility.shape
    columns = np.arange(num_agents)
    best = utility.argmax(axis=0)
    best = np.where(utility[best, columns] > utility[policy_of, columns], best, policy_of)
    if may_empty:
        return best
    gain = utility[best, columns] - utility[policy_of, columns]

    # The agent of each policy that gains least by leaving, of all ranks: (gain, agent, where it would go).
    anchor = np.full((3, num_policies), np.inf)
    order = np.lexsort((columns, gain, policy_of))
    present, at = np.unique(policy_of[order], return_index=True)
    least = order[at]
    anchor[:, present] = gain[least], first + least, best[least]
    everyone = np.zeros((comm.size, 3, num_policies))
    everyone[comm.rank] = np.nan_to_num(anchor, posinf=np.finfo(np.float64).max)
    comm.allreduce_(everyone)
    winner = np.lexsort((everyone[:, 1], everyone[:, 0]), axis=0)[0]
    agent, target = everyone[winner, 1, np.arange(num_policies)], everyone[winner, 2, np.arange(num_policies)]

    count = comm.allreduce_(np.bincount(best, minlength=num_policies))
    for _ in range(num_policies):  # keeping one agent may empty the policy that it would have joined
        empty = np.flatnonzero(count == 0)
        if not len(empty):
            break
        j = empty[0]
        count[j] += 1
        count[int(target[j])] -= 1
        own = int(agent[j]) - first
        if 0 <= own < num_agents:
            best[own] = j
    return best


def even_random(num_agents: int, num_policies: int, rng: np.random.Generator) -> np.ndarray:
    """A random partition `[n]` into groups whose sizes differ by at most one."""
    return rng.permutation(np.arange(num_agents) % num_policies)


def by_parameter(values: np.ndarray) -> np.ndarray:
    """A group `[n]` for each value of a parameter `[n]`, in the order of the values."""
    return np.unique(values, return_inverse=True)[1].reshape(len(values))


def contiguous(order: np.ndarray, num_policies: int) -> np.ndarray:
    """The oracle: agents `order [n]`, neighbours having like preferences, cut into k groups of even size."""
    policy_of = np.empty(len(order), np.int64)
    policy_of[order] = np.arange(len(order)) * num_policies // len(order)
    return policy_of


def by_rewards(features: np.ndarray, num_policies: int, seed: int) -> np.ndarray:
    """K-means of the agents' rewards on the same steps, `features [n, steps]`; their policies `[n]`.

    Agents that never got a reward are all alike: there may be fewer groups than policies.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(num_policies, n_init=10, random_state=seed).fit(features).labels_.astype(np.int64)


def one_hot(policy_of: np.ndarray, num_policies: int) -> np.ndarray:
    """The hard assignment `[n]` as a matrix `[k, n]` of float32."""
    return (np.arange(num_policies)[:, None] == policy_of).astype(np.float32)


def weighted_sum(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sums `[k, R]` over agents of `values [k, R, agents]`, weighted by `weights [k, agents]`."""
    return torch.bmm(values, weights[..., None])[..., 0]


def policies_of(state: dict) -> np.ndarray | None:
    """Each agent's policy `[n]` in a stored assignment, the likeliest if soft; None if there is none."""
    if "logits" in state:
        return np.asarray(state["logits"]).argmax(0)
    return np.asarray(state["policy_of"]) if "policy_of" in state else None


def probabilities(state: dict, num_policies: int, part: slice, size: int) -> np.ndarray:
    """A stored assignment of the `size` agents in `part` as `[k, size]`; uniform if there is none yet."""
    if "logits" in state:
        return torch.softmax(torch.as_tensor(state["logits"])[:, part].double(), dim=0).numpy()
    if "policy_of" in state:
        return one_hot(np.asarray(state["policy_of"])[part], num_policies)
    return np.full((num_policies, size), 1.0 / num_policies)
