"""The RL^2 policy: a memory fed with transitions, read out as an action distribution and a value."""

import torch
from gymnasium import spaces
from torch import nn
from torch.nn import functional as F

from common.device import use_bfloat16
from common.distributions import ActionHead
from common.errors import UserError
from common.memory import make_memory

MAX_JOINT = 512  # pairs (observation, action) up to which they get inputs of their own


def space_size(space) -> int:
    """Length of the vector that stands for one element of a Discrete or one-dimensional Box space."""
    return int(space.n) if isinstance(space, spaces.Discrete) else int(space.shape[0])


def resolve(config, observation_space, action_space) -> tuple[str, str]:
    """The transition encoder and readout that `auto` stands for."""
    discrete = isinstance(observation_space, spaces.Discrete)
    small = discrete and isinstance(action_space, spaces.Discrete)
    small = small and observation_space.n * action_space.n <= MAX_JOINT
    encoder = config.transition_encoder
    readout = config.readout
    encoder = ("joint" if small else "mlp") if encoder == "auto" else encoder
    readout = ("bilinear" if small else "mlp") if readout == "auto" else readout
    if encoder == "joint" and not small:
        raise UserError(
            f"--transition_encoder joint needs discrete spaces of at most {MAX_JOINT} pairs: use mlp"
        )
    if readout == "bilinear" and not discrete:
        raise UserError("--readout bilinear needs discrete observations: use mlp")
    return encoder, readout


class TransitionFeatures:
    """What the policy is told at each step: where it is, what it did last, and what came of it.

    `plain`: (observation, last action, last reward, last done), the paper's input. `joint` adds the one-hot
    of the pair (last observation, last action) and that one-hot times the last reward: sums of these over
    time are the visit counts and reward totals which a Bayesian would keep. `mlp` adds the last observation
    and leaves the binding to a network. Everything of the last step is zero at the start of a meta-episode.
    """

    def __init__(self, kind: str, observation_space, action_space):
        self.kind = kind
        self.discrete_observation = isinstance(observation_space, spaces.Discrete)
        self.discrete_action = isinstance(action_space, spaces.Discrete)
        self.num_observations, self.num_actions = space_size(observation_space), space_size(action_space)
        extra = {
            "plain": 0,
            "joint": 2 * self.num_observations * self.num_actions,
            "mlp": self.num_observations,
        }
        self.size = self.num_observations + self.num_actions + 2 + extra[kind]

    def observation(self, observation):
        """Vectors `[..., num_observations]`."""
        if self.discrete_observation:
            return F.one_hot(observation, self.num_observations).float()
        return observation.float()

    def action(self, action):
        """Vectors `[..., num_actions]`."""
        return F.one_hot(action, self.num_actions).float() if self.discrete_action else action.float()

    def __call__(self, observation, last=None):
        """Inputs `[N, size]` at one step; `last` = (observation, action, reward, done), None at first."""
        here = self.observation(observation)
        x = here.new_zeros(len(here), self.size)
        o, a = self.num_observations, self.num_actions
        x[:, :o] = here
        if last is None:
            x[:, o + a + 1] = 1.0  # the step before the first counts as an end, as in the paper
            return x
        last_observation, last_action, last_reward, last_done = last
        action = self.action(last_action)
        x[:, o : o + a] = action
        x[:, o + a] = last_reward
        x[:, o + a + 1] = last_done
        if self.kind == "joint":
            pair = (self.observation(last_observation)[:, :, None] * action[:, None, :]).flatten(1)
            x[:, o + a + 2 : o + a + 2 + o * a] = pair
            x[:, o + a + 2 + o * a :] = pair * last_reward[:, None]
        elif self.kind == "mlp":
            x[:, o + a + 2 :] = self.observation(last_observation)
        return x


class Branch(nn.Module):
    """Features -> (small network) -> memory -> outputs `[..., num_outputs]`."""

    def __init__(self, config, features: TransitionFeatures, readout: str, num_outputs: int):
        super().__init__()
        width = config.num_features
        self.readout, self.num_outputs, self.features = readout, num_outputs, features
        self.autocast = use_bfloat16(config.precision, config.device)
        self.embed = None
        if features.kind == "mlp":
            self.embed = nn.Sequential(
                nn.Linear(features.size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
            )
        span = config.meta_episode_len if config.memory_span < 0 else config.memory_span
        input_size = width if self.embed else features.size
        self.memory = make_memory(config.architecture, input_size, width, config.meta_episode_len, span)
        memory_size = self.memory.output_size
        # Memory -> hidden layers -> outputs; the hidden layers see the observation too where `mlp` says so.
        sizes = [memory_size + (features.num_observations if readout == "mlp" else 0)]
        sizes += [width] * (0 if readout == "linear" else config.readout_layers)
        layers = [nn.Sequential(nn.Linear(n, m), nn.Tanh()) for n, m in zip(sizes, sizes[1:], strict=False)]
        self.hidden = nn.Sequential(*layers)
        self.out = nn.Linear(
            sizes[-1], num_outputs * (features.num_observations if readout == "bilinear" else 1)
        )
        with torch.no_grad():  # begin near uniform actions and value zero
            self.out.weight.mul_(0.01)
            self.out.bias.zero_()

    def step(self, x, observation, state):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
            y, state = self.memory.step(self.embed(x) if self.embed else x, state)
            y = self.think(y, observation)
        return self.read(y.float(), observation), state

    def unroll(self, x, observation):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
            y = self.memory.unroll(self.embed(x) if self.embed else x)
            y = self.think(y, observation)
        return self.read(y.float(), observation)

    def think(self, y, observation):
        """The hidden layers between memory `y [..., H]` and outputs."""
        if self.readout == "mlp":
            y = torch.cat([y, self.features.observation(observation).to(y.dtype)], -1)
        return self.hidden(y)

    def read(self, y, observation):
        """Outputs `[..., num_outputs]`, always in float32: a probability ratio needs its digits."""
        outputs = self.out(y)
        if self.readout == "bilinear":
            outputs = outputs.unflatten(-1, (self.features.num_observations, self.num_outputs))
            index = observation[..., None, None].expand(*observation.shape, 1, self.num_outputs)
            outputs = outputs.gather(-2, index)[..., 0, :]
        return outputs


class RecurrentPolicy(nn.Module):
    """Policy and value over meta-episodes (Duan et al. 2016, section 2.3).

    `step` acts for N meta-episodes at once, `unroll` re-reads whole meta-episodes `[T, N]` while learning.
    With `shared_network` one memory serves both; otherwise the value has a memory of its own, which is not
    needed for acting, so `step` then returns None for it.
    """

    def __init__(self, config, observation_space, action_space):
        super().__init__()
        encoder, readout = resolve(config, observation_space, action_space)
        self.features = TransitionFeatures(encoder, observation_space, action_space)
        num_actions = self.features.num_actions
        self.head = ActionHead(num_actions, self.features.discrete_action)
        self.shared = config.shared_network
        self.actor = Branch(config, self.features, readout, num_actions + int(self.shared))
        self.critic = None if self.shared else Branch(config, self.features, readout, 1)

    def initial_state(self, num_meta_episodes: int):
        return self.actor.memory.initial_state(num_meta_episodes)

    def step(self, x, observation, state):
        """`x [N, D]`, observations of N meta-episodes -> (distribution, value [N] or None, state)."""
        outputs, state = self.actor.step(x, observation, state)
        distribution = self.head(outputs[..., : self.head.num_outputs])
        return distribution, (outputs[..., -1] if self.shared else None), state

    def unroll(self, x, observation):
        """`x [T, N, D]`, observations `[T, N]` -> (distribution over `[T, N]`, value `[T, N]`)."""
        outputs = self.actor.unroll(x, observation)
        distribution = self.head(outputs[..., : self.head.num_outputs])
        value = outputs[..., -1] if self.shared else self.critic.unroll(x, observation)[..., 0]
        return distribution, value

    def value(self, x, observation):
        """Values `[T, N]` of whole meta-episodes."""
        return self.unroll(x, observation)[1] if self.shared else self.critic.unroll(x, observation)[..., 0]
