"""The factored network of PerSim for all members of an ensemble at once."""

import numpy as np
import torch
from torch import nn

from persim.agent_models import Personal


class Simulator(nn.Module):
    """M networks that predict the change of n agents' states (Agarwal et al. 2021, Algorithm 1).

    The change of coordinate d of state s under action a is, for agent n, sum over l = 1..r of
    u_l(n) * v_l(s, d) * w_l(a), where u, v and w share nothing. u is a table, as a linear layer on one-hot
    agents is; so is w for `num_actions` discrete actions, else w is a network of `action_size` inputs. The
    change is in units of `target_scale`; states enter v as (state - state_mean) / state_scale.

    Layers are [M, out, in + 1], the bias last. `noise` [d] is how far predictions of training data typically
    are off, in the same units, and `heard` [M] bool which members make them; the learner keeps both.
    """

    def __init__(
        self,
        num_models: int,
        num_agents: int,
        num_factors: int,
        state_size: int,
        num_actions: int = 0,
        action_size: int = 0,
        state_layers=(256,),
        action_layers=(),
    ):
        super().__init__()
        M, r, d = num_models, num_factors, state_size
        self.sizes = {"num_models": M, "num_agents": num_agents, "num_factors": r, "state_size": d}
        self.sizes |= {"num_actions": num_actions, "action_size": action_size}
        self.sizes |= {"state_layers": list(state_layers), "action_layers": list(action_layers)}
        self.num_models, self.num_factors, self.state_size, self.num_actions = M, r, d, num_actions
        self.agent = nn.Parameter(torch.zeros(M, num_agents, r))
        self.agent_bias = nn.Parameter(torch.zeros(M, 1, r))
        if num_actions:
            self.action = nn.Parameter(torch.zeros(M, num_actions, r))
            self.action_bias = nn.Parameter(torch.zeros(M, 1, r))
        else:
            self.action_net = layers(M, (action_size, *action_layers, r))
        self.state_net = layers(M, (d, *state_layers, d * r))
        for name, value in (("state_mean", 0), ("state_scale", 1), ("target_scale", 1), ("noise", 1)):
            self.register_buffer(name, torch.full((d,), float(value)))
        self.register_buffer("heard", torch.ones(M, dtype=torch.bool))

    @torch.no_grad()
    def draw(self, generators) -> "Simulator":
        """Draw the weights of each member from its own generator, as PyTorch draws those of linear layers."""
        for name, parameter in self.named_parameters():
            table = name.removesuffix("_bias")
            fan_in = parameter.shape[-1] - 1 if "net" in name else getattr(self, table).shape[1]
            for member, rng in zip(parameter, generators, strict=True):
                uniform = rng.random(member.shape, np.float32)
                member.copy_(torch.from_numpy((2 * uniform - 1) / np.float32(np.sqrt(fan_in))))
        return self

    def load_state_dict(self, state):
        """As in PyTorch; older saves do not tell who is heard: all are."""
        return super().load_state_dict({"heard": torch.ones_like(self.heard)} | dict(state))

    def factors(self, agent=None):
        """u of the agents `agent` [M, B], or of all: [M, B, r]."""
        table = self.agent + self.agent_bias
        return table if agent is None else rows(table, agent)

    def action_factors(self, action):
        """w of `action` [M, B] or [M, B, a]: [M, B, r]."""
        if self.num_actions:
            return rows(self.action + self.action_bias, action)
        return run(self.action_net, action.transpose(1, 2)).transpose(1, 2)

    def state_factors(self, state):
        """v of `state` [M, B, d]: [M, B, d, r]."""
        x = ((state - self.state_mean) / self.state_scale).transpose(1, 2)
        return run(self.state_net, x).transpose(1, 2).unflatten(2, (self.state_size, self.num_factors))

    def forward(self, agent, state, action):
        """The change [M, B, d], in units of `target_scale`, of `state` [M, B, d] under `action`."""
        factor = self.factors(agent) * self.action_factors(action)
        return (self.state_factors(state) @ factor[..., None])[..., 0]

    @torch.no_grad()
    def at(self, agents=None, *, factor=None) -> Personal:
        """Heard members' simulators of the agents [E], or of new ones of factors [M, E, r], to be stepped."""
        if factor is None:
            agents = torch.as_tensor(agents, device=self.agent.device)
            factor = self.factors()[:, agents]
        return Personal(self, torch.as_tensor(factor, dtype=torch.float32, device=self.agent.device))


def layers(num_models: int, sizes) -> nn.ParameterList:
    """Weights [M, out, in + 1] between layers of the given sizes."""
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    return nn.ParameterList([torch.zeros(num_models, out, into + 1) for into, out in pairs])


def run(net, x):
    """[M, in, B] to [M, out, B], with ReLU between layers."""
    for i, layer in enumerate(net):
        x = torch.baddbmm(layer[:, :, -1:], layer[:, :, :-1], torch.relu(x) if i else x)
    return x


def rows(table, index):
    """Rows `index` [M, B] of `table` [M, n, r]: [M, B, r]."""
    members = torch.arange(len(table), device=table.device)[:, None]
    return table[members, index]
