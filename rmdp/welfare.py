"""Which welfare of the agents training maximises: what an agent counts in the update of the policies."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from common.errors import UserError
from rmdp.agent_shard import AgentShard

LEAST = 0.01  # utilities below count like this one: a power of 0 or less would let one agent outweigh all
SOFTNESS = 0.05  # of the border of the worst share, in utilities: who is near it counts in part
OF_MEAN = 0.1  # of each weight, the part that all agents have alike: a policy of the well-off learns too
EXAMPLES = "mean, nash, p=P with P at most 1 (p=-4), cvar=A with A in 0..1 (cvar=.1), worst"


@dataclass(frozen=True)
class Welfare:
    """A welfare of utilities `u [n]`: the p-mean, or the mean of the `share` that is worst off.

    `(mean of u^p)^(1/p)`: p = 1 is the mean, p = 0 the geometric mean or Nash's welfare, and p to minus
    infinity the least (Kim et al. 2025, arXiv 2502.09724). The mean over a worst share is the conditional
    value at risk. A share of 0 is the worst agent alone.
    """

    p: float = 1.0
    share: float | None = None

    def value(self, utility: np.ndarray) -> float:
        """The welfare of utilities `[n]`; those below `LEAST` count like it in a p-mean below 1."""
        if self.share is not None:
            return float(np.sort(utility)[: self.worst(len(utility))].mean())
        if self.p == 1:
            return float(utility.mean())
        u = utility.clip(LEAST)
        return float(np.exp(np.log(u).mean()) if self.p == 0 else (u**self.p).mean() ** (1 / self.p))

    def weights(self, utility: np.ndarray) -> np.ndarray:
        """What each of n agents counts, mean 1: the derivative by its utility, and a part that all share.

        With the assignment fixed, the gradient of a welfare by the policies is the sum over agents of this
        derivative times the gradient of their utility. That of a worst share is 1 or 0, which would let
        agents at its border change places for ever; here it falls over `SOFTNESS` along a sigmoid.
        """
        if self.share is None:
            slope = utility.clip(LEAST) ** (self.p - 1)
        else:
            slope = below(utility, self.worst(len(utility)) / len(utility))
        return (1 - OF_MEAN) * slope / slope.mean() + OF_MEAN

    def worst(self, num_agents: int) -> int:
        """How many agents the worst share has, at least one."""
        assert self.share is not None
        return max(1, round(self.share * num_agents))


def parse_welfare(text: str) -> Welfare | None:
    """The welfare that `--welfare` names; None for the mean of returns as they are. Raises UserError."""
    if text in NAMED:
        return NAMED[text]
    name, _, number = text.partition("=")
    try:
        value = float(number)
        if name == "p" and -100 <= value <= 1:
            return Welfare(p=value)
        if name == "cvar" and 0 < value <= 1:
            return Welfare(share=value)
    except ValueError:
        pass
    raise UserError(f"--welfare {text}: unknown; choose one of {EXAMPLES}")


NAMED = {"mean": None, "nash": Welfare(p=0.0), "worst": Welfare(share=0.0)}


def below(utility: np.ndarray, share: float) -> np.ndarray:
    """How far each of utilities `[n]` lies in the worst `share`, 0..1: a sigmoid whose mean is that share."""
    low, high = utility.min() - 1.0, utility.max() + 1.0
    for _ in range(50):  # the mean rises with the border
        border = (low + high) / 2
        inside = 0.5 * (1 + np.tanh((border - utility) / (2 * SOFTNESS)))
        low, high = (low, border) if inside.mean() > share else (border, high)
    return inside


def utilities(returns: np.ndarray, floor: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Returns `[..., n]` of agents as shares of the way from their floor `[n]` to their own best `[n]`."""
    return (returns - floor) / (best - floor)


class AgentWeights:
    """What each of a rank's own agents counts in the update of the policies, by their present returns.

    All count alike until the first `update`.
    """

    def __init__(self, welfare: Welfare, shard: AgentShard):
        self.welfare, self.shard = welfare, shard
        self.floor, self.best = np.zeros(shard.num), np.ones(shard.num)  # [own]
        self.weight = torch.ones(shard.num)
        self.utility: np.ndarray | None = None  # [n]

    def begin(self, floor: np.ndarray, best: np.ndarray) -> None:
        """Let the utility of each of all agents go from 0 to 1 between these returns `[n]`."""
        self.floor, self.best = floor[self.shard.slice], best[self.shard.slice]

    def update(self, returns: np.ndarray) -> None:
        """Weigh the own agents by their returns `[own]` under the present assignment; a collective.

        The weight by an agent's return is that by its utility over its range.
        """
        own = utilities(returns, self.floor, self.best)
        self.utility = self.shard.gather(torch.from_numpy(own)).numpy()
        weights = self.shard.cut(self.welfare.weights(self.utility)).numpy()
        self.weight = torch.from_numpy(weights / (self.best - self.floor)).float()

    def everyone(self) -> np.ndarray:
        """The weights `[n]` of all ranks' agents; a collective."""
        return self.shard.gather(self.weight).numpy()

    def report(self) -> dict[str, float]:
        """The welfare of all agents, the least utility, and how unequal the weights are."""
        if self.utility is None:
            return {}
        weights = self.welfare.weights(self.utility)
        return {
            "train/welfare": self.welfare.value(self.utility),
            "train/least_utility": float(self.utility.min()),
            "train/largest_weight": float(weights.max()),
        }

    def state_dict(self) -> dict:
        """The range of all ranks' agents, their utilities and weights; a collective."""
        gather: Callable = self.shard.gather
        return {
            **({} if self.utility is None else {"utility": self.utility}),
            "floor": gather(torch.from_numpy(self.floor)),
            "best": gather(torch.from_numpy(self.best)),
            "weight": gather(self.weight),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        cut = self.shard.cut
        self.floor, self.best = (cut(state[name]).numpy().copy() for name in ("floor", "best"))
        self.utility = np.array(state["utility"]) if "utility" in state else None
        self.weight = cut(state["weight"]).clone()


def make_weights(text: str, shard: AgentShard) -> AgentWeights | None:
    """The weights of a rank's agents for `--welfare`; None for the mean of returns: all count alike."""
    welfare = parse_welfare(text)
    return AgentWeights(welfare, shard) if welfare else None
