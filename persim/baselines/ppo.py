"""PPO of stable-baselines3 in a pessimistic MDP; what it learns is taken out as plain weights."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.random import get_state, set_state
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from common.rollout import to_space
from persim.baselines.pessimistic import PessimisticMDP
from persim.data.behaviour import Layers

NUM_STEPS, BATCH_SIZE = 64, 1024  # of each environment between updates; of a gradient step


class Standardised(VecEnv):
    """A pessimistic MDP for stable-baselines3; observations are (state - mean) / scale, a Box is -1..1."""

    def __init__(self, mdp: PessimisticMDP, mean: np.ndarray, scale: np.ndarray) -> None:
        self.mdp, self.mean, self.scale = mdp, mean, scale
        self.own = space = mdp.family.action_space
        if isinstance(space, Box):
            space = Box(-1, 1, space.shape, np.float32)
        super().__init__(mdp.num_envs, mdp.family.observation_space, space)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Observations [E, d] of states [E, d]."""
        return ((state - self.mean) / self.scale).astype(np.float32)

    def reset(self) -> np.ndarray:
        """Begin all episodes."""
        return self.observe(self.mdp.reset())

    def step_async(self, actions: np.ndarray) -> None:
        """Take note of the actions [E] or [E, a]."""
        self.actions = to_space(actions, self.own)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Act; observations, rewards, ends, and in `infos` what an ended episode led to."""
        reward, terminated, truncated, reached = self.mdp.step(self.actions)
        infos: list[dict[str, Any]] = [{} for _ in reward]
        over = terminated | truncated
        for i in over.nonzero()[0]:
            infos[i]["terminal_observation"] = self.observe(reached[i])
            infos[i]["TimeLimit.truncated"] = bool(truncated[i])
        return self.observe(self.mdp.state), reward, over, infos

    def get_attr(self, attr_name: str, indices: Any = None) -> list:
        """None for the only attribute that the library asks for."""
        if attr_name != "render_mode":
            raise AttributeError(attr_name)
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """There is none."""
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *arguments: Any, indices: Any = None, **options: Any) -> list:
        """There is none."""
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Never."""
        return [False] * self.num_envs

    def close(self) -> None:
        """There is nothing to close."""
        pass


@contextmanager
def generators_kept() -> Iterator[None]:
    """Global random generators go on afterwards as if nothing had been drawn: PPO seeds and uses all."""
    own, numpys = random.getstate(), get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(own)
        set_state(numpys)


def learn(mdp: PessimisticMDP, mean: np.ndarray, scale: np.ndarray, settings: Any, seed: int) -> Layers:
    """Layers of the policy that PPO learns in `mdp`, for states as they are; see `layers_of`."""
    with generators_kept():
        model = make_model(Standardised(mdp, mean, scale), settings, seed)
        rollout = model.n_steps * mdp.num_envs
        model.learn(math.ceil(settings.num_steps / rollout) * rollout)
    return fold(layers_of(model), mean, scale)


def make_model(env: VecEnv, settings: Any, seed: int) -> PPO:
    """A fresh PPO that neither prints nor writes; its learning rate falls linearly from update to update."""
    updates = math.ceil(settings.num_steps / (env.num_envs * NUM_STEPS))
    model = PPO(
        "MlpPolicy",
        env,
        # `left` is what is left of `total_timesteps` after the collecting: 0 at the last update.
        learning_rate=lambda left: settings.learning_rate * (left + 1 / updates),
        n_steps=NUM_STEPS,
        batch_size=BATCH_SIZE,
        n_epochs=settings.num_epochs,
        gamma=settings.gamma,
        ent_coef=settings.entropy_coef,
        policy_kwargs={"net_arch": list(settings.features), "activation_fn": nn.Tanh},
        seed=seed,
        device="cpu",
    )
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def layers_of(model: PPO) -> Layers:
    """Weights [in, out] and biases [out] of what chooses actions, tanh between them."""
    policy: Any = model.policy
    hidden = [part for part in policy.mlp_extractor.policy_net if isinstance(part, nn.Linear)]
    linear = [*hidden, policy.action_net]
    return [(part.weight.detach().numpy().T.copy(), part.bias.detach().numpy().copy()) for part in linear]


def fold(layers: Layers, mean: np.ndarray, scale: np.ndarray) -> Layers:
    """The same layers with (state - mean) / scale as part of the first."""
    (weight, bias), *rest = layers
    weight = weight / np.asarray(scale, np.float64)[:, None]
    return [(weight.astype(np.float32), (bias - mean @ weight).astype(np.float32)), *rest]
