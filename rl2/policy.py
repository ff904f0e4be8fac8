"""The RL^2 policy, a memory fed with transitions and read out as actions and a value; and what acts by it."""

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import nn
from torch.nn import functional as F

from common.device import use_bfloat16
from common.distributions import ActionHead, Categorical, DiagonalGaussian
from common.errors import UserError
from common.memory import make_memory
from common.rollout import to_space
from common.running_moments import RunningMoments
from rl2.config import Config

State = tuple[torch.Tensor, ...]  # of a memory
MAX_JOINT = 512  # pairs (observation, action) up to which they get inputs of their own


def space_size(space: Space) -> int:
    """Length of the vector that stands for one element of a Discrete or one-dimensional Box space."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    assert space.shape is not None
    return int(space.shape[0])


def resolve(config: Config, observation_space: Space, action_space: Space) -> tuple[str, str]:
    """The transition encoder and readout that `auto` stands for."""
    discrete = isinstance(observation_space, spaces.Discrete)
    small = discrete and isinstance(action_space, spaces.Discrete)
    small = small and space_size(observation_space) * space_size(action_space) <= MAX_JOINT
    encoder: str = config.transition_encoder
    readout: str = config.readout
    if config.architecture == "none":
        encoder = "none"
    if encoder == "auto":
        encoder = "joint" if small else "mlp"
    if readout == "auto":
        readout = "bilinear" if small else "mlp"
    if encoder == "joint" and not small:
        raise UserError(
            f"--transition_encoder joint needs discrete spaces of at most {MAX_JOINT} pairs: use mlp"
        )
    if readout == "bilinear" and not discrete:
        raise UserError("--readout bilinear needs discrete observations: use mlp")
    return encoder, readout


def make_normaliser(config: Config, observation_space: Space) -> RunningMoments | None:
    """What observations are normalised by; None if they are taken as they are."""
    if config.normalise_observations and isinstance(observation_space, spaces.Discrete):
        raise UserError("--normalise_observations: discrete observations are no vectors; leave it out")
    return RunningMoments(space_size(observation_space)) if config.normalise_observations else None


class Last(NamedTuple):
    """The step before, of N meta-episodes."""

    observation: torch.Tensor  # [N] or [N, d]
    action: torch.Tensor  # [N] or [N, d]
    reward: torch.Tensor  # [N] float32
    done: torch.Tensor  # [N] float32


class TransitionFeatures:
    """What the policy is given at each step: where it is, what it did last, and what came of it.

    `plain`: (observation, last action, last reward, last done), the paper's input. `joint` adds the one-hot
    of the pair (last observation, last action) and that one-hot times the last reward: sums of these over
    time are the visit counts and reward totals which a Bayesian would keep. `mlp` adds the last observation
    and leaves the binding to a network. `none` leaves all but the observation out. Everything of the last
    step is zero at the start of a meta-episode. Vectors of observations are normalised by a `normaliser`.
    """

    def __init__(
        self,
        encoder: str,
        observation_space: Space,
        action_space: Space,
        normaliser: RunningMoments | None = None,
    ):
        self.encoder, self.normaliser = encoder, normaliser
        self.discrete_observation = isinstance(observation_space, spaces.Discrete)
        self.discrete_action = isinstance(action_space, spaces.Discrete)
        self.num_observations, self.num_actions = space_size(observation_space), space_size(action_space)
        extra = {
            "plain": 0,
            "joint": 2 * self.num_observations * self.num_actions,
            "mlp": self.num_observations,
        }
        self.size = self.num_observations
        if encoder != "none":
            self.size += self.num_actions + 2 + extra[encoder]

    def observation(self, observation: torch.Tensor) -> torch.Tensor:
        """Vectors `[..., num_observations]`."""
        if self.discrete_observation:
            return F.one_hot(observation.long(), self.num_observations).float()
        return observation.float() if self.normaliser is None else self.normaliser(observation.float())

    def action(self, action: torch.Tensor) -> torch.Tensor:
        """Vectors `[..., num_actions]`."""
        return F.one_hot(action, self.num_actions).float() if self.discrete_action else action.float()

    def __call__(self, observation: torch.Tensor, last: Last | None = None) -> torch.Tensor:
        """Inputs `[N, size]` at one step; `last` is None at first."""
        here = self.observation(observation)
        if self.encoder == "none":
            return here
        if last is None:
            last_observation, action = torch.zeros_like(here), here.new_zeros(len(here), self.num_actions)
            reward = here.new_zeros(len(here), 1)
            done = torch.ones_like(reward)  # the step before the first counts as an end, as in the paper
        else:
            last_observation, action = self.observation(last.observation), self.action(last.action)
            reward, done = last.reward[:, None], last.done[:, None]
        return self.join(here, last_observation, action, reward, done)

    def join(
        self,
        here: torch.Tensor,
        last_observation: torch.Tensor,
        action: torch.Tensor,
        reward: torch.Tensor,
        done: torch.Tensor,
    ) -> torch.Tensor:
        """Inputs `[N, size]` from the vectors of observations and of the last action, and `[N, 1]` each."""
        parts = [here, action, reward, done]
        if self.encoder == "joint":
            pair = (last_observation[:, :, None] * action[:, None, :]).flatten(1)
            parts += [pair, pair * reward]
        elif self.encoder == "mlp":
            parts += [last_observation]
        return torch.cat(parts, dim=1)


class Branch(nn.Module):
    """Features -> (small network) -> memory -> outputs `[..., num_outputs]`."""

    def __init__(self, config: Config, features: TransitionFeatures, readout: str, num_outputs: int):
        super().__init__()
        width = config.num_features
        self.readout, self.num_outputs, self.features = readout, num_outputs, features
        self.autocast = use_bfloat16(config.precision, config.device)
        self.embed = None
        if features.encoder == "mlp":
            self.embed = nn.Sequential(
                nn.Linear(features.size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
            )
        span = config.meta_episode_len if config.memory_span < 0 else config.memory_span
        input_size = width if self.embed else features.size
        length = config.meta_episode_len + config.bootstrap  # the value behind the end needs one step more
        self.memory = make_memory(config.architecture, input_size, width, length, span)
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

    def step(self, x: torch.Tensor, observation: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Outputs `[N, num_outputs]` and the next state."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
            y, state = self.memory.step(self.embed(x) if self.embed else x, state)
            y = self.hidden_values(y, observation)
        return self.read(y.float(), observation), state

    def unroll(self, x: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        """Outputs `[T, N, num_outputs]` of whole meta-episodes."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
            y = self.memory.unroll(self.embed(x) if self.embed else x)
            y = self.hidden_values(y, observation)
        return self.read(y.float(), observation)

    def hidden_values(self, y: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        """The hidden layers between memory `y [..., H]` and outputs."""
        if self.readout == "mlp":
            y = torch.cat([y, self.features.observation(observation).to(y.dtype)], -1)
        return self.hidden(y)

    def read(self, y: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        """Outputs `[..., num_outputs]`, always in float32: a probability ratio needs its digits."""
        outputs = self.out(y)
        if self.readout == "bilinear":
            outputs = outputs.unflatten(-1, (self.features.num_observations, self.num_outputs))
            index = observation.long()[..., None, None].expand(*observation.shape, 1, self.num_outputs)
            outputs = outputs.gather(-2, index)[..., 0, :]
        return outputs


class RecurrentPolicy(nn.Module):
    """Policy and value over meta-episodes (Duan et al. 2016, section 2.3).

    `step` acts for N meta-episodes at once, `unroll` re-reads whole meta-episodes `[T, N]` while learning.
    With `shared_network` one memory serves both; otherwise the value has a memory of its own, which is not
    needed for acting, so `step` then returns None for it. `num_more` inputs come from elsewhere.
    """

    def __init__(self, config: Config, observation_space: Space, action_space: Space, num_more: int = 0):
        super().__init__()
        encoder, readout = resolve(config, observation_space, action_space)
        self.normaliser = make_normaliser(config, observation_space)
        self.features = TransitionFeatures(encoder, observation_space, action_space, self.normaliser)
        self.features.size += num_more
        num_actions = self.features.num_actions
        self.head = ActionHead(
            num_actions, self.features.discrete_action, config.initial_log_std, config.final_log_std is None
        )
        self.scaled = config.action_scaling == "box"
        self.shared = config.shared_network
        self.actor = Branch(config, self.features, readout, num_actions + int(self.shared))
        self.critic = None if self.shared else Branch(config, self.features, readout, 1)
        if not self.head.discrete:
            bias = self.actor.out.bias.detach().view(-1, self.actor.num_outputs)
            bias[:, :num_actions] = config.initial_action

    def initial_state(self, num_meta_episodes: int) -> State:
        """The empty memory of that many meta-episodes."""
        return self.memory.initial_state(num_meta_episodes)

    @property
    def memory(self) -> Any:
        """What remembers while it acts."""
        return self.actor.memory

    def by_ppo(self) -> list[nn.Parameter]:
        """The parameters that PPO trains."""
        return list(self.parameters())

    def learnt_from(self, x: torch.Tensor, state: State) -> torch.Tensor:
        """What `unroll` is given of a step that was given `x [N, D]` and ended in `state`."""
        return x

    def step(
        self, x: torch.Tensor, observation: torch.Tensor, state: State
    ) -> tuple[Categorical | DiagonalGaussian, torch.Tensor | None, State]:
        """`x [N, D]`, observations of N meta-episodes -> (distribution, value [N] or None, state)."""
        outputs, state = self.actor.step(x, observation, state)
        distribution = self.head(outputs[..., : self.head.num_outputs])
        return distribution, (outputs[..., -1] if self.shared else None), state

    def unroll(
        self, x: torch.Tensor, observation: torch.Tensor
    ) -> tuple[Categorical | DiagonalGaussian, torch.Tensor]:
        """`x [T, N, D]`, observations `[T, N]` -> (distribution over `[T, N]`, value `[T, N]`)."""
        outputs = self.actor.unroll(x, observation)
        distribution = self.head(outputs[..., : self.head.num_outputs])
        value = outputs[..., -1] if self.critic is None else self.critic.unroll(x, observation)[..., 0]
        return distribution, value

    def value(self, x: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        """Values `[T, N]` of whole meta-episodes."""
        if self.critic is None:
            return self.unroll(x, observation)[1]
        return self.critic.unroll(x, observation)[..., 0]


class Remembered(NamedTuple):
    """What an `Actor` remembers of N meta-episodes."""

    state: State
    last: Last | None


class Actor:
    """Adapts to N tasks while it acts in them: its memory goes on over the ends of episodes, until `reset`.

    Takes the most likely actions, or draws actions from `rng` where one is given. It acts for any agents.
    """

    def __init__(self, policy: Any, action_space: Space, rng: np.random.Generator | None = None):
        self.policy, self.action_space, self.rng = policy, action_space, rng
        self.beginning: Remembered | None = None
        self.last: Last | None = None

    def start_from(self, remembered: Remembered | None) -> None:
        """From now on `reset` begins with this; row i with what is remembered of row i modulo its number."""
        self.beginning = remembered

    def reset(self, num: int) -> None:
        """Begin `num` meta-episodes: with an empty memory, or from where `start_from` says."""
        state, last = self.beginning or (None, None)
        if state is None or last is None:
            self.state, self.last = self.policy.initial_state(num), None
            return
        times = num // len(last.reward)
        self.state = self.policy.memory.repeat(state, times)
        self.last = Last(*(part.repeat(times, *[1] * (part.ndim - 1)) for part in last))

    def remembered(self, reward: np.ndarray | None = None, done: np.ndarray | None = None) -> Remembered:
        """A copy of what is remembered now; `reward [N]` and `done [N]` are what the last step led to."""
        self.complete(reward, done)
        return Remembered(self.policy.memory.repeat(self.state, 1), self.last)

    def complete(self, reward: np.ndarray | None, done: np.ndarray | None) -> None:
        """Complete the last step."""
        if self.last is not None and reward is not None:
            outcome = (torch.tensor(values, dtype=torch.float32) for values in (reward, done))
            device = self.last.action.device
            self.last = Last(*self.last[:2], *(values.to(device) for values in outcome))

    @torch.no_grad()
    def act(
        self,
        observation: np.ndarray,
        reward: np.ndarray | None = None,
        done: np.ndarray | None = None,
        running: np.ndarray | None = None,
    ) -> np.ndarray:
        """Actions `[N, ...]` for observations `[N, ...]`; `reward` and `done` are of the step before."""
        self.complete(reward, done)
        # A copy, to be remembered: environments may reuse their arrays.
        seen = torch.tensor(observation, device=next(self.policy.parameters()).device)
        distribution, _, self.state = self.policy.step(
            self.policy.features(seen, self.last), seen, self.state
        )
        if self.rng is None:
            action = distribution.mode()
        else:
            uniform = self.rng.random((len(seen), self.policy.head.num_outputs), dtype=np.float32)
            action = distribution.sample(torch.from_numpy(uniform).to(seen.device))
        nothing = seen.new_zeros(len(seen), dtype=torch.float32)
        self.last = Last(seen, action, nothing, nothing)
        return to_space(action.cpu().numpy(), self.action_space, self.policy.scaled)
