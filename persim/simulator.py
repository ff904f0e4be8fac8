"""The factored network of PerSim for all members of an ensemble at once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from persim.agent_models import AgentModels
from persim.history import History
from persim.limits import Wall


class Simulator(nn.Module):
    """M networks that predict the change of n agents' states (Agarwal et al. 2021, Algorithm 1).

    The change of coordinate d of state s under action a is, for agent n, sum over l = 1..r of
    u_l(n) * v_l(s, d) * w_l(a), where u, v and w share nothing. u is a table, as a linear layer on one-hot
    agents is; so is w for `num_actions` discrete actions, else w is a network of `action_size` inputs. The
    change is in units of `target_scale`; states enter v as (state - state_mean) / state_scale, and actions
    that are numbers enter w likewise, by `action_mean` and `action_scale`.

    With a `history` states are longer [D] than what is predicted of them [d], and the change is what is left
    of it beside what the history foresees; without, D is d. What is seen next stops at the `walls`.

    Layers are [M, out, in + 1], the bias last. `noise` [d] is how far predictions of training data typically
    are off, in the same units, and `active_members` [M] bool which members make them; the learner keeps both.
    """

    action_mean: torch.Tensor
    action_scale: torch.Tensor
    state_mean: torch.Tensor
    state_scale: torch.Tensor
    target_scale: torch.Tensor
    noise: torch.Tensor
    active_members: torch.Tensor

    def __init__(
        self,
        num_models: int,
        num_agents: int,
        num_factors: int,
        state_size: int,
        num_actions: int = 0,
        action_size: int = 0,
        state_layers: Sequence[int] = (256,),
        action_layers: Sequence[int] = (),
        history: dict[str, Any] | None = None,
        walls: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__()
        self.history = History(**history) if history else None
        self.walls = [Wall(**wall) for wall in walls]
        M, r, D = num_models, num_factors, state_size
        d = self.history.size if self.history else D
        self.sizes: dict[str, Any] = {
            "num_models": M,
            "num_agents": num_agents,
            "num_factors": r,
            "state_size": D,
            "num_actions": num_actions,
            "action_size": action_size,
            "state_layers": list(state_layers),
            "action_layers": list(action_layers),
            "history": history,
            "walls": list(walls),
        }
        self.num_models, self.num_agents, self.num_factors = M, num_agents, r
        self.state_size, self.target_size, self.num_actions = D, d, num_actions
        self.agent = nn.Parameter(torch.zeros(M, num_agents, r))
        self.agent_bias = nn.Parameter(torch.zeros(M, 1, r))
        if num_actions:
            self.action = nn.Parameter(torch.zeros(M, num_actions, r))
            self.action_bias = nn.Parameter(torch.zeros(M, 1, r))
        else:
            self.register_buffer("action_mean", torch.zeros(action_size))
            self.register_buffer("action_scale", torch.ones(action_size))
            self.action_net = layers(M, (action_size, *action_layers, r))
        self.state_net = layers(M, (D, *state_layers, d * r))
        for size, name, value in (
            (D, "state_mean", 0),
            (D, "state_scale", 1),
            (d, "target_scale", 1),
            (d, "noise", 1),
        ):
            self.register_buffer(name, torch.full((size,), float(value)))
        self.register_buffer("active_members", torch.ones(M, dtype=torch.bool))

    @torch.no_grad()
    def draw(self, generators: Iterable[np.random.Generator]) -> "Simulator":
        """Draw the weights of each member from its own generator, as PyTorch draws those of linear layers."""
        for name, parameter in self.named_parameters():
            table = name.removesuffix("_bias")
            fan_in = parameter.shape[-1] - 1 if "net" in name else getattr(self, table).shape[1]
            for member, rng in zip(parameter, generators, strict=True):
                uniform = rng.random(member.shape, np.float32)
                member.copy_(torch.from_numpy((2 * uniform - 1) / np.float32(np.sqrt(fan_in))))
        return self

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As in PyTorch; older saves call the active members `heard`, or do not name them: then all are.
        Theirs is a network of actions as they are.
        """
        state = dict(state_dict)
        older = {"active_members": state.pop("heard", torch.ones_like(self.active_members))}
        if not self.num_actions:
            size = self.sizes["action_size"]
            older |= {"action_mean": torch.zeros(size), "action_scale": torch.ones(size)}
        return super().load_state_dict({**older, **state}, strict, assign)

    def factors(self, agent: torch.Tensor | None = None) -> torch.Tensor:
        """u of the agents `agent` [M, B], or of all: [M, B, r]."""
        table = self.agent + self.agent_bias
        return table if agent is None else rows(table, agent)

    def action_factors(self, action: torch.Tensor) -> torch.Tensor:
        """w of `action` [M, B] or [M, B, a]: [M, B, r]."""
        if self.num_actions:
            return rows(self.action + self.action_bias, action)
        x = (action - self.action_mean) / self.action_scale
        return run(self.action_net, x.transpose(1, 2)).transpose(1, 2)

    def state_factors(self, state: torch.Tensor) -> torch.Tensor:
        """v of `state` [M, B, D]: [M, B, d, r]."""
        x = ((state - self.state_mean) / self.state_scale).transpose(1, 2)
        return run(self.state_net, x).transpose(1, 2).unflatten(2, (self.target_size, self.num_factors))

    def forward(self, agent: torch.Tensor, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """The change [M, B, d], in units of `target_scale`, of `state` [M, B, D] under `action`."""
        return factored(self.factors(agent), self.state_factors(state), self.action_factors(action))

    @torch.no_grad()
    def at(self, agents: Any = None, *, factor: torch.Tensor | None = None) -> AgentModels:
        """Active members' models of the agents [E], or of new ones of factors [M, E, r], to be stepped."""
        if factor is None:
            factor = self.factors()[:, torch.as_tensor(agents, device=self.agent.device)]
        return AgentModels(self, torch.as_tensor(factor, dtype=torch.float32, device="cpu"))


def factored(u: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The paper's product: changes [..., d] = sum over l of u [..., r] * v [..., d, r] * w [..., r]."""
    return (v @ (u * w)[..., None])[..., 0]


def layers(num_models: int, sizes: Sequence[int]) -> nn.ParameterList:
    """Weights [M, out, in + 1] between layers of the given sizes."""
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    return nn.ParameterList([torch.zeros(num_models, out, into + 1) for into, out in pairs])


def run(net: Iterable[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """[M, in, B] to [M, out, B], with ReLU between layers."""
    for i, layer in enumerate(net):
        x = torch.baddbmm(layer[:, :, -1:], layer[:, :, :-1], torch.relu(x) if i else x)
    return x


def rows(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows `index` [M, B] of `table` [M, n, r]: [M, B, r]."""
    members = torch.arange(len(table), device=table.device)[:, None]
    return table[members, index]
