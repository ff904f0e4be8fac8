"""A particle on a plane whose actions mean something else for each agent (Zhang 2019)."""

import itertools
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from envs.parameters import EnvError, check_parameters, check_shapes, check_sizes
from envs.protocols import Draws, Parameters
from envs.task_env import SeparateTaskVectorEnv, SingleTaskEnv

DIRECTIONS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]], np.float32)  # left, right, down, up
RELEASED_MAPS = np.array([[2, 0, 3, 1], [0, 1, 2, 3], [0, 2, 3, 1], [3, 0, 1, 2], [2, 1, 3, 0], [2, 0, 3, 1]])
LARGEST_NOISE = 0.5


class ReleasedPhysics:
    """The physics of the author's code: a force on a mass of 1, and a bonus near the target."""

    target = 0.75  # of both coordinates
    bonus_distance2 = 0.001  # squared distance to the target below which there is the bonus
    force, kept_velocity, dt = 0.25, 0.75, 0.1
    top_speed = dt * force / (1 - kept_velocity)
    reach_per_step = dt * top_speed

    def move(
        self, position: np.ndarray, velocity: np.ndarray, moves: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The next positions and velocities `[..., 2]`."""
        velocity = self.kept_velocity * velocity + self.dt * self.force * moves
        return position + self.dt * velocity, velocity

    def outcome(self, distance2: np.ndarray, remaining: Any) -> tuple[np.ndarray, np.ndarray]:
        """Rewards and ends `[N]`, from squared distances and the shares of the episode that remain."""
        bonus = (distance2 < self.bonus_distance2) * remaining
        return (bonus - distance2).astype(np.float32), np.zeros(len(distance2), bool)


class PaperPhysics:
    """The physics of the text: moves of a fixed length, and an end at the target."""

    target = 1.0  # of both coordinates
    end_distance2 = 0.01**2  # squared distance to the target below which the episode ends
    unit = 0.05  # length of a move; the text leaves it open
    top_speed = 0.0  # there is no velocity
    reach_per_step = unit

    def move(
        self, position: np.ndarray, velocity: np.ndarray, moves: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The next positions `[..., 2]`, and the velocities as they are."""
        return position + self.unit * moves, velocity

    def outcome(self, distance2: np.ndarray, remaining: Any) -> tuple[np.ndarray, np.ndarray]:
        """Rewards and ends `[N]`, from squared distances to the target."""
        return -distance2, distance2 < self.end_distance2


PHYSICS: dict[str, ReleasedPhysics | PaperPhysics] = {"paper": PaperPhysics(), "released": ReleasedPhysics()}
TARGET = {variant: physics.target for variant, physics in PHYSICS.items()}


def base_maps(rng: np.random.Generator, num_groups: int, maps: str) -> np.ndarray:
    """Base maps [num_groups, 4]: action a of group i goes to DIRECTIONS[maps[i, a]].

    "random": distinct permutations. "identifiable": another pair of actions goes right and up in each group,
    the permutation being random within the pair; maps of one pair cannot be told apart by what an optimal
    policy does. "released": the first maps of the author's file; its groups 1 and 6 have the same map.
    """
    check_sizes("particle", num_groups=num_groups)
    permutations = rng.permutation(list(itertools.permutations(range(4))))
    right_or_up = permutations % 2 @ [1, 2, 4, 8]
    _, first_of_pair = np.unique(right_or_up, return_index=True)
    choices = {
        "identifiable": permutations[np.sort(first_of_pair)],
        "random": permutations,
        "released": RELEASED_MAPS,
    }
    if maps not in choices:
        raise EnvError(f"particle: maps is {maps!r}; give one of {', '.join(choices)}")
    if num_groups > len(choices[maps]):
        raise EnvError(f"particle: {num_groups} groups of {maps} maps; there are only {len(choices[maps])}")
    return choices[maps][:num_groups]


class Particle:
    """The family of particles with remapped actions (Zhang 2019, arXiv 2010.04816).

    A task is an agent: parameters {"moves": [n, `num_actions`, 2] float32 in -1..1, the direction in which
    each action goes, "group": [n] int, the latent group, which no policy sees}. A drawn agent has the base
    map of its group; the coordinate that is 0 there gets noise U(-0.5, 0.5). With 5 actions, action 0 stays,
    as in the author's code. The particle starts at (0, 0); an episode is `truncated` after `max_episode_len`
    steps. The observation is the position [2], with `observe_velocity` [4]: position, velocity.

    `variant="released"` is the physics of the author's code, which fits the published figures: velocity
    <- 0.75 velocity + 0.1 * 0.25 * move, then position <- position + 0.1 velocity; target (0.75, 0.75).
    The reward is minus the squared distance d2 to the target after the step, plus the share of the episode
    that remains after it where d2 < 0.001. No episode ends early. In 100 steps a particle gets 0.97 along one
    axis, so no drawn agent reaches the bonus. The code's contact force never acts on the particle.

    `variant="paper"` is the text: position <- position + one unit * move, target (1, 1), the reward is minus
    d2 and the episode is `terminated` within 0.01 of the target. The text leaves the unit open; it is 0.05
    here. Then the goal is 40 steps away for an agent without noise and at most 80 for one with noise (4 /
    unit), so 20 steps remain to correct. A unit of 1 would step over the goal, one below 0.04 leave it out
    of reach for some agents. As moves are of fixed length, about 1 % of drawn agents cannot come as near
    as 0.01 in 100 steps.
    """

    name = "particle"

    def __init__(
        self,
        variant: str = "released",
        num_actions: int = 4,
        max_episode_len: int = 100,
        observe_velocity: bool = False,
        maps: str = "identifiable",
        num_groups: int = 6,
        map_seed: int = 0,
    ):
        check_sizes("particle", num_actions=num_actions, max_episode_len=max_episode_len)
        if variant not in PHYSICS:
            raise EnvError(f"particle: variant is {variant!r}; give one of {', '.join(PHYSICS)}")
        if num_actions not in (4, 5):
            raise EnvError(f"particle: num_actions is {num_actions}; give 4, or 5 for one that stays")
        if observe_velocity and variant == "paper":
            raise EnvError("particle: the paper variant has no velocity; leave observe_velocity off")
        if not isinstance(map_seed, int | np.integer) or map_seed < 0:
            raise EnvError(f"particle: map_seed is {map_seed!r}; give a whole number of at least 0")
        self.variant, self.physics, self.num_actions = variant, PHYSICS[variant], int(num_actions)
        self.max_episode_len, self.observe_velocity = int(max_episode_len), bool(observe_velocity)
        self.maps, self.num_groups = maps, num_groups
        self.base_maps = base_maps(np.random.default_rng(map_seed), num_groups, maps)  # what `sample` uses
        reach = 2 * [self.physics.reach_per_step * self.max_episode_len]
        if self.observe_velocity:
            reach += 2 * [self.physics.top_speed]
        high = 1.01 * np.array(reach, np.float32)  # rounding may pass the exact bound by a hair
        self.observation_space, self.action_space = Box(-high, high), Discrete(self.num_actions)

    def sample(self, rng: Draws, n: int) -> Parameters:
        """n agents, each of a random group; base maps are those of `map_seed`."""
        group = (rng.random(n) * len(self.base_maps)).astype(np.int64)
        return self._agents(rng, group, self.base_maps)

    def population(
        self,
        rng: np.random.Generator,
        num_groups: int | None = None,
        num_variants: int = 4,
        maps: str | None = None,
    ) -> dict[str, np.ndarray]:
        """`num_groups` * `num_variants` agents, group by group; `rng` draws base maps and noise.

        None takes the family's own setting. The paper has 6 groups of 4 variants.
        """
        check_sizes("particle", num_variants=num_variants)
        num_groups = self.num_groups if num_groups is None else num_groups
        drawn = base_maps(rng, num_groups, self.maps if maps is None else maps)
        return self._agents(rng, np.repeat(np.arange(num_groups), num_variants), drawn)

    def _agents(self, rng: Draws, group: np.ndarray, maps: np.ndarray) -> Parameters:
        main = DIRECTIONS[maps][group]  # [n, 4, 2]
        noise = LARGEST_NOISE * (2 * rng.random((len(group), 4), dtype=np.float32) - 1)
        moves = np.zeros((len(group), self.num_actions, 2), np.float32)
        moves[:, -4:] = np.where(main == 0, noise[..., None], main)
        return {"moves": moves, "group": group}

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = check_parameters("particle", parameters)
        check_shapes("particle", arrays, {"moves": (self.num_actions, 2), "group": ()})
        moves, group = arrays["moves"].astype(np.float32, copy=False), arrays["group"]
        if (np.abs(moves) > 1).any():
            raise EnvError("particle: a move lies outside -1..1; scale the moves")
        if group.dtype.kind not in "iu" or (group < 0).any():
            raise EnvError("particle: group must be whole numbers from 0")
        return {"moves": moves, "group": group}

    def return_range(self, parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
        """The return at rest, and that of the move that leads nearest to the target in each step, each `[n]`.

        No policy is far above it: of 400 drawn agents (released physics) the best shares of moves, which a
        particle cannot split, bring at most 0.4 % more of the way from rest.
        """
        moves = np.asarray(parameters["moves"], np.float64)  # [n, actions, 2]
        n = len(moves)
        position, velocity = np.zeros((2, n, 2))
        best, over = np.zeros(n), np.zeros(n, bool)
        for t in range(self.max_episode_len):
            choices = self.physics.move(position[:, None], velocity[:, None], moves)
            nearest = np.square(choices[0] - self.physics.target).sum(-1).argmin(1)
            position, velocity = (np.broadcast_to(c, moves.shape)[np.arange(n), nearest] for c in choices)
            distance2 = np.square(position - self.physics.target).sum(1)
            reward, ended = self.physics.outcome(distance2, 1 - (t + 1) / self.max_episode_len)
            best += np.where(over, 0.0, reward)
            over |= ended
        at_rest, _ = self.physics.outcome(np.full(n, 2 * self.physics.target**2), 1.0)
        return self.max_episode_len * at_rest.astype(np.float64), best

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> "ParticleVectorEnv":
        """The n tasks side by side."""
        return ParticleVectorEnv(
            parameters=parameters,
            rng=rng,
            variant=self.variant,
            num_actions=self.num_actions,
            max_episode_len=self.max_episode_len,
            observe_velocity=self.observe_velocity,
        )


class ParticleVectorEnv(SeparateTaskVectorEnv):
    """N particles moved at once; see `Particle`."""

    def __init__(
        self, num_envs: int | None = None, *, parameters: Any = None, rng: Draws | None = None, **sizes: Any
    ):
        family = Particle(**sizes)
        self.physics = family.physics
        super().__init__(family, num_envs, family.max_episode_len, parameters, rng)

    def load(self, parameters: Parameters) -> None:
        """Keep the tasks' arrays."""
        self.moves = np.ascontiguousarray(parameters["moves"]).reshape(-1, 2)
        self.first_row = np.arange(self.num_envs) * self.family.num_actions
        self.position, self.velocity = np.zeros((2, self.num_envs, 2), np.float32)

    def begin(self, tasks: np.ndarray) -> np.ndarray:
        """Begin an episode in the tasks `[N]` bool; all observations `[N, ...]`."""
        self.position[tasks], self.velocity[tasks] = 0, 0
        return self._observe()

    def _observe(self) -> np.ndarray:
        if self.family.observe_velocity:
            return np.concatenate([self.position, self.velocity], axis=1)
        return self.position.copy()

    def advance(self, actions: np.ndarray, rng: Draws) -> tuple[np.ndarray, ...]:
        """Observations, rewards and where the task ends the episode; draws nothing."""
        moves = self.moves.take(self.first_row + actions, axis=0)
        self.position, self.velocity = self.physics.move(self.position, self.velocity, moves)
        squares = np.square(self.position - self.physics.target)
        distance2 = squares[:, 0] + squares[:, 1]  # a third of the time of a sum over so short an axis
        remaining = (self.max_episode_len - self.elapsed) / self.max_episode_len
        return self._observe(), *self.physics.outcome(distance2, remaining)


class ParticleEnv(SingleTaskEnv):
    """One particle; see `Particle`. `parameters` with n = 1 fixes the agent."""

    def __init__(self, *, parameters: Any = None, **sizes: Any):
        super().__init__(ParticleVectorEnv(parameters=parameters, **sizes))
