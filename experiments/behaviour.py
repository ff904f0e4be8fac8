"""Train PerSim's behaviour and test policies:  python -m experiments.behaviour --environment cart_pole

One policy for each behaviour agent and one, for tests of prediction, on the default agent. They are to be as
mediocre as the authors' were: training stops near their returns, and the nearest snapshot is kept. Saved
after each policy; start it again and it goes on with the next. Needs stable-baselines3 (extra [behaviour]).
"""

import importlib.metadata
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from torch import nn

from common.config import AT_LEAST_ZERO, check, parse_flags
from common.errors import UserError
from common.runs import run_folder
from common.runs.seeding import stream
from envs import make_family
from envs.heterogeneous_dynamics import DynamicsEnv
from experiments.behaviour_recipes import RECIPES, Recipe
from mpi_utils.comm import guard, set_threads
from persim.data.behaviour import FOLDER, Policy, Trained, join, load_some, num_policies, save, test_epsilon
from persim.data.trajectories import trajectories

EPISODES = 100  # of which a snapshot's return is the mean
LAST_EPISODES = 1000  # new ones for the card: the snapshot was chosen by luck, too
PACKAGES = ("stable-baselines3", "torch", "gymnasium", "mujoco")


@dataclass(frozen=True)
class Settings:
    """Training of one environment's behaviour and test policies."""

    environment: Literal["mountain_car", "cart_pole", "half_cheetah_body"] = "cart_pole"
    """Whose agents act."""
    max_steps: Annotated[int, AT_LEAST_ZERO] = 0
    """Steps of one training at most; 0: the environment's own number."""
    folder: str = str(FOLDER)
    """Where the policies are kept, in a folder of the environment's name."""
    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Everything random follows from it."""


class Snapshots:
    """Of a network in training, the snapshot whose mean return is in a range, or nearest to it."""

    def __init__(self, low: float, high: float, evaluate, stop_above: bool = False):
        self.low, self.high, self.evaluate, self.stop_above = low, high, evaluate, stop_above
        self.gap, self.steps = np.inf, 0
        self.layers: Any = None  # of the snapshot kept

    def take(self, layers, steps: int) -> bool:
        """Evaluate a network after `steps`, and keep it if it is nearer; whether to stop."""
        mean = self.evaluate(layers).mean()
        print(f"{steps} steps: {mean:.1f}", file=sys.stderr, flush=True)
        gap = max(self.low - mean, mean - self.high, 0.0)
        if gap < self.gap:
            self.gap, self.layers, self.steps = gap, layers, steps
        return bool(gap == 0 or (self.stop_above and mean > self.high))


def layers_of(model) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights [1, in, out] and biases [1, 1, out] of what chooses actions in a model of stable-baselines3."""
    network = model.q_net if hasattr(model, "q_net") else model.actor.mu
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [
        (layer.weight.detach().numpy().T[None].copy(), layer.bias.detach().numpy()[None, None].copy())
        for layer in linear
    ]


def main(comm) -> None:
    set_threads(comm)
    with comm.agree():
        settings = parse_flags(Settings, sys.argv[1:], "python -m experiments.behaviour")
        check(settings)
        train_all(settings)


def train_all(settings: Settings) -> None:
    """Train the policies that are still missing, one after another, and save after each."""
    recipe = RECIPES[settings.environment]
    family = make_family(settings.environment)
    with run_folder.lock(Path(settings.folder) / family.name):
        trained = load_some(family, settings.folder)
        while len(trained.cards) < num_policies(family):
            trained = join(trained, train(family, recipe, settings, len(trained.cards)))
            save(trained, settings.folder)
            print(trained.cards[-1], flush=True)


def train(family, recipe: Recipe, settings: Settings, j: int) -> Trained:
    """Policy j of a family alone, the test policy being the last."""
    began, test = time.monotonic(), j == num_policies(family) - 1
    own = family.default if test else {name: values[j] for name, values in family.behaviour_agents.items()}
    agent = {name: np.array([value], np.float64) for name, value in own.items()}
    epsilon, wanted = (test_epsilon(family), recipe.test) if test else (0.0, recipe.behaviour)

    def evaluate(layers, episodes=EPISODES, last=0):
        policy = Policy(family, layers, np.zeros(episodes, np.int64), epsilon)
        many = {name: value.repeat(episodes) for name, value in agent.items()}
        rng = stream(settings.seed, "evaluation", last, j)
        return trajectories(family, many, policy, rng, family.max_episode_len).returns()

    snapshots = Snapshots(*wanted, evaluate, recipe.stop_above)
    seed = int(stream(settings.seed, "weights", 0, j).integers(2**31))
    model = make_model(recipe, DynamicsEnv(type(family), parameters=agent), seed)
    learn(model, settings.max_steps or recipe.max_steps, recipe.interval, snapshots)
    returns = evaluate(snapshots.layers, LAST_EPISODES, 1)
    command = f"python -m experiments.behaviour --environment {settings.environment}"
    card = {
        "role": "test" if test else "behaviour",
        "agent": {name: float(value) for name, value in own.items()},
        "wanted": list(wanted),
        "return": float(returns.mean()),
        "sd": float(returns.std(ddof=1)),
        "episodes": len(returns),
        "epsilon": epsilon,
        "algorithm": recipe.algorithm,
        "settings": recipe.settings,
        "steps": snapshots.steps,
        "minutes": round((time.monotonic() - began) / 60, 2),
        "command": f"{command} --max_steps {settings.max_steps} --seed {settings.seed}",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    return Trained(family, snapshots.layers, agent, [card])


def learn(model, max_steps: int, interval: int, snapshots: Snapshots) -> None:
    """Train a model until a snapshot of it is good enough, one after each `interval` steps."""

    def go_on(*_) -> bool:
        steps = model.num_timesteps
        return steps % interval > 0 or not snapshots.take(layers_of(model), steps)

    model.learn(max_steps, go_on)
    if snapshots.layers is None:
        snapshots.take(layers_of(model), model.num_timesteps)


def make_model(recipe: Recipe, env, seed: int):
    """A fresh model of stable-baselines3; raises `UserError` where that is not installed."""
    try:
        import stable_baselines3
        from stable_baselines3.common.noise import NormalActionNoise
    except ImportError:
        text = "stable-baselines3 is missing; pip install 'personalised-meta-rl[behaviour]'"
        raise UserError(text) from None
    settings = {"policy_kwargs": {"net_arch": list(recipe.features)}, "device": "cpu", "seed": seed}
    if recipe.algorithm == "TD3":
        size = env.action_space.shape
        settings["action_noise"] = NormalActionNoise(np.zeros(size), np.full(size, 0.1))
    return getattr(stable_baselines3, recipe.algorithm)("MlpPolicy", env, **recipe.settings, **settings)


if __name__ == "__main__":
    guard(main)
