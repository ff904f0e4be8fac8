"""Episodes that all last as long, for memories that play several in a row."""

from typing import Any

import numpy as np

from common.rollout import final_observations
from envs.protocols import Parameters


class FixedHorizon:
    """A family whose episodes all last `horizon` steps: after its end one has no rewards.

    A memory that plays several episodes in a row is to get several, not more by ending them soon. `steps`
    counts the steps that were really taken in all environments made so far.
    """

    def __init__(self, family: Any, horizon: int):
        self.family, self.name = family, family.name
        self.max_episode_len, self.steps = horizon, 0
        self.observation_space, self.action_space = family.observation_space, family.action_space

    def sample(self, rng: Any, n: int) -> Parameters:
        """Tasks of the family."""
        return self.family.sample(rng, n)

    def check(self, parameters: Any) -> Parameters:
        """The parameters as the family has them."""
        return self.family.check(parameters)

    def make_vec(self, parameters: Parameters, rng: Any = None) -> "FixedHorizonEnv":
        """The tasks side by side."""
        return FixedHorizonEnv(self, self.family.make_vec(parameters, rng))


class FixedHorizonEnv:
    """Environments of a `FixedHorizon` family; while an episode is over, the last observation stays."""

    def __init__(self, family: FixedHorizon, env: Any):
        self.family, self.env, self.num_envs = family, env, env.num_envs
        self.single_action_space = env.single_action_space
        self.single_observation_space = env.single_observation_space

    def reset(self, **_: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin all episodes."""
        self.elapsed, self.over = 0, np.zeros(self.num_envs, bool)
        self.held = np.asarray(self.env.reset()[0]).copy()
        return self.held.copy(), {}

    def step(self, actions: np.ndarray) -> tuple:
        """Act in each; all episodes are truncated together, and begin anew."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        live = ~self.over
        self.family.steps += int(live.sum())
        reward = np.where(live, reward, 0.0).astype(np.float32)
        ended = live & np.logical_or(terminated, truncated)
        observation = final_observations(observation, infos, ended)
        observation[self.over] = self.held[self.over]
        self.over, self.held, self.elapsed = self.over | ended, observation, self.elapsed + 1
        none = np.zeros(self.num_envs, bool)
        if self.elapsed < self.family.max_episode_len:
            return observation.copy(), reward, none, none, {}
        first, _ = self.reset()
        return first, reward, none, ~none, {"final_obs": observation, "_final_obs": ~none}

    def close(self) -> None:
        """Close the environments."""
        self.env.close()
