"""Who is served by which policy: the assignment of a rank's own agents, and how each algorithm changes it."""

import numpy as np
import torch

from common.optim import load_optimiser_state, make_adamw, optimiser_state
from common.runs.seeding import stream
from rmdp.assignment import by_rewards, contiguous, even_random, expectation_step, one_hot

FEATURES = 10_000  # steps by which K-means tells agents apart (section 2)


class Members:
    """The own agents' policies `policy_of [own]`, or `logits [k, own]` while the assignment is soft.

    EM's warm start is soft, as end-to-end is throughout. (The paper's code binds agent i to policy i mod k
    for the warm start. But a policy that has had no reason to go where an agent wants it cannot win that
    agent later: what is bound too early stays.) Until half of the training of `cluster` nobody has a policy.
    """

    def __init__(self, config, comm, own, family, agents):
        self.config, self.comm, self.own, self.family = config, comm, own, family
        self.k, self.policy_of, self.logits = config.num_policies, None, None
        rng = stream(config.seed, "assignment")
        if config.algorithm == "oracle":
            self.policy_of = contiguous(family.order(agents), self.k)[own.slice]
        elif config.algorithm != "cluster":
            self.policy_of = even_random(own.total, self.k, rng)[own.slice]
        if config.algorithm == "end_to_end" or (config.algorithm == "em" and config.warm_start_iters):
            start = rng.standard_normal((self.k, own.total), np.float32)[:, own.slice]
            self.logits = torch.from_numpy(start.copy()).requires_grad_()
            self.optimiser = make_adamw([self.logits], config.assignment_lr, eps=1e-8)

    @property
    def soft(self) -> bool:
        return self.logits is not None

    def weights(self):
        """The assignment as a matrix `[k, own]` whose columns sum to 1."""
        if self.soft:
            return torch.softmax(self.logits, dim=0)
        if self.policy_of is None:
            return torch.full((self.k, self.own.num), 1.0 / self.k)
        return torch.from_numpy(one_hot(self.policy_of, self.k))

    def serve(self, advantages: list[np.ndarray], shape):
        """Sums of `shape [k, B]` over agents of `[k, B, chunk]`, weighted by the present soft assignment."""
        weights, served = self.weights(), torch.zeros(shape)
        for agents, advantage in zip(self.own.chunks, advantages, strict=True):
            served = served + summed(torch.from_numpy(advantage), weights[:, agents])
        return served

    def step(self, served, slope: np.ndarray) -> None:
        """One step of the logits along PPO's loss, of which `slope [k, B]` is the derivative by `served`."""
        self.optimiser.zero_grad()
        if self.own.num:
            served.backward(torch.from_numpy(slope))
        self.optimiser.step()

    def reassign(self, i: int, utility: np.ndarray, outcome) -> int:
        """The E-step of EM, or the clustering halfway; how many agents changed policy. A collective.

        `utility [k, own]` are returns under each policy, `outcome [S, O]` those of the steps just taken.
        """
        config, before, soft = self.config, self.policy_of, self.logits
        if config.algorithm == "em" and i + 1 >= config.warm_start_iters:
            self.logits = None
            better = utility if soft is None else soft.detach().numpy()
            last = i + 1 == config.max_iters  # an empty policy cannot learn, but that is over now
            self.policy_of = expectation_step(better, before, self.comm, self.own.slice.start, last)
        if config.algorithm == "cluster" and i + 1 == config.max_iters // 2:
            self.policy_of = self.cluster(outcome)
        if before is None or soft is not None:
            return 0
        return int(self.comm.allreduce_(np.array([(before != self.policy_of).sum()]))[0])

    def cluster(self, outcome) -> np.ndarray:
        """K-means of all agents' rewards on the same steps; the policies of the own agents."""
        num_features = min(len(outcome), FEATURES, max(1, 10**9 // self.own.total))
        features = np.zeros((self.own.total, num_features), np.float32)
        rows = np.linspace(0, len(outcome) - 1, num_features).astype(np.int64)
        features[self.own.slice] = self.own.rewards(self.family, outcome[rows]).numpy().T
        self.comm.allreduce_(features)
        policy_of = np.zeros(self.own.total, np.int64)
        with self.comm.agree():
            if self.comm.is_root:
                policy_of = by_rewards(features, self.k, self.config.seed % 2**32)
        return self.comm.bcast_(policy_of)[self.own.slice]

    def state_dict(self) -> dict:
        """The assignment of all ranks' agents; a collective."""
        gather = self.own.gather
        if self.soft:
            moments = optimiser_state(self.optimiser)
            moments = {name: gather(value, axis=1) for name, value in moments.items()}
            return {"logits": gather(self.logits.detach(), axis=1), "moments": moments}
        return {} if self.policy_of is None else {"policy_of": gather(torch.from_numpy(self.policy_of))}

    def load_state_dict(self, state: dict) -> None:
        cut = self.own.cut
        if "policy_of" in state:
            self.policy_of = cut(state["policy_of"]).numpy().copy()
        if "logits" not in state:
            self.logits = None
            return
        self.logits.data.copy_(cut(state["logits"], axis=1))
        moments = {name: cut(value, axis=1) for name, value in state["moments"].items()}
        load_optimiser_state(self.optimiser, moments)


def summed(values, weights):
    """Sums `[k, R]` over agents of `values [k, R, agents]`, weighted by `weights [k, agents]`."""
    return torch.bmm(values, weights[..., None])[..., 0]
