"""Which policy serves which agent: the paper's algorithms as functions of arrays.

A hard assignment is an array `[n]` of policy numbers, a soft one a matrix `[k, n]` whose columns sum to 1.
A rank holds the columns of its own agents.
"""

import warnings

import numpy as np


def even_random(num_agents: int, num_policies: int, rng) -> np.ndarray:
    """A random partition into groups whose sizes differ by at most one."""
    return rng.permutation(np.arange(num_agents) % num_policies)


def contiguous(order: np.ndarray, num_policies: int) -> np.ndarray:
    """The oracle: agents `order[n]`, neighbours wanting alike things, cut into k groups of even size."""
    policy_of = np.empty(len(order), np.int64)
    policy_of[order] = np.arange(len(order)) * num_policies // len(order)
    return policy_of


def by_rewards(features: np.ndarray, num_policies: int, seed: int) -> np.ndarray:
    """K-means of the agents' rewards on the same steps, `features [n, steps]`.

    Agents who never got anything are all alike: there may be fewer groups than policies.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(num_policies, n_init=10, random_state=seed).fit(features).labels_.astype(np.int64)


def one_hot(policy_of: np.ndarray, num_policies: int) -> np.ndarray:
    """The hard assignment `[n]` as a matrix `[k, n]` of float32."""
    return (np.arange(num_policies)[:, None] == policy_of).astype(np.float32)


def expectation_step(
    utility: np.ndarray, policy_of: np.ndarray, comm, first: int = 0, may_empty: bool = False
) -> np.ndarray:
    """The E-step: each agent moves to the policy that serves it best, and no policy is left empty.

    `utility [k, n]` are returns of this rank's agents under each policy, `policy_of [n]` their present
    policies, `first` the number of the rank's first agent. A policy that would lose all its agents keeps the
    one that gains least by leaving, unless it `may_empty`. Nobody ever moves to a policy that is worse for
    it. A collective.
    """
    num_policies, num_agents = utility.shape
    columns = np.arange(num_agents)
    best = utility.argmax(axis=0)
    best = np.where(utility[best, columns] > utility[policy_of, columns], best, policy_of)
    if may_empty:
        return best
    gain = utility[best, columns] - utility[policy_of, columns]

    # The member of each policy that gains least by leaving, of all ranks: (gain, agent, where it would go).
    anchor = np.full((3, num_policies), np.inf)
    order = np.lexsort((columns, gain, policy_of))
    present, at = np.unique(policy_of[order], return_index=True)
    member = order[at]
    anchor[:, present] = gain[member], first + member, best[member]
    everyone = np.zeros((comm.size, 3, num_policies))
    everyone[comm.rank] = np.nan_to_num(anchor, posinf=np.finfo(np.float64).max)
    comm.allreduce_(everyone)
    winner = np.lexsort((everyone[:, 1], everyone[:, 0]), axis=0)[0]
    agent, target = everyone[winner, 1, np.arange(num_policies)], everyone[winner, 2, np.arange(num_policies)]

    count = comm.allreduce_(np.bincount(best, minlength=num_policies))
    for _ in range(num_policies):  # keeping one member may empty the policy that it wanted to join
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
