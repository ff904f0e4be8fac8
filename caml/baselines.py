"""Other ways to a start for few-shot adaptation, each under the interaction budget of CAML's meta-training.

All train by the same policy gradient, on the types that CAML drew in the same iteration (`same_type` on the
query types, as upper reference), until they have spent as many environment steps.
"""

from dataclasses import dataclass

import numpy as np
import torch

from caml.adapt import loss, make_optimiser, update
from caml.policy import Policies, num_weights
from caml.rollout import Actors, num_inputs_of
from caml.tasks import Types
from common.runs.seeding import stream

# Reptile adapts as often to a task as the evaluation does.
REPTILE_UPDATES = 5
# Of MAML's own update, plain gradient descent; the best of 0.3, 1, 3 and 10 on seeds 0 and 1 of the particle.
MAML_RATE = 3.0
METHODS = ("joint", "same_type", "different_type", "reptile", "maml", "fomaml", "random")


@dataclass
class Start:
    """`policies` from which `task i` takes number `index[i]`, and how it is adapted.

    `index` None: all are tried on the task first. `rate` 0: by Adam, else by gradient descent.
    """

    policies: Policies
    index: np.ndarray | None
    env_steps: int = 0
    rate: float = 0.0


class Training:
    """Environments for one opponent's training, and the steps it has spent of its `budget`."""

    def __init__(self, config, family, types: Types, budget: int):
        self.config, self.family, self.types = config, family, types
        self.budget, self.env_steps, self.iteration = budget, 0, 0

    def fresh(self, num_policies: int, seed: int | None = None) -> Policies:
        """New policies, of the run's seed or another."""
        config, family = self.config, self.family
        sizes = num_inputs_of(family.observation_space), config.num_features, int(family.action_space.n)
        uniform = stream(config.seed if seed is None else seed, "weights")
        uniform = uniform.random((num_policies, num_weights(*sizes)), np.float32)
        return Policies.fresh(uniform, *sizes, config.activation)

    def iterations(self, types=None):
        """Yield actors on `types`, or on those that CAML draws in the same iteration, while steps are left.

        The last iteration may pass the budget by a part of itself.
        """
        config = self.config
        while self.env_steps < self.budget:
            rng = stream(config.seed, "tasks", self.iteration, 1)
            drawn = rng.choice(self.types.support, config.tasks_per_iteration) if types is None else types
            actors = Actors(self.family, self.types[drawn], config, self.iteration)
            yield actors
            actors.close()
            self.env_steps += int(actors.num_steps.sum())
            self.iteration += 1


def pretrain(training: Training, types) -> Policies:
    """One policy for each of `types`, which share the budget."""
    policies = training.fresh(len(types))
    optimiser = make_optimiser(policies, training.config.learning_rate)
    for actors in training.iterations(types):
        update(policies, optimiser, actors.play(policies), training.config)
    return policies


def joint(training: Training) -> Policies:
    """One policy for all types: each update follows the mean gradient over the iteration's types."""
    policy, config = training.fresh(1), training.config
    optimiser = make_optimiser(policy, config.learning_rate)
    for actors in training.iterations():
        copies = spread(policy, actors.num_tasks)
        step(optimiser, loss_of(copies, actors, config))
    return policy


def reptile(training: Training) -> Policies:
    """Move towards the mean of the policies adapted to the types (Nichol et al. 2018); the step falls from
    1 to 0.
    """
    policy, config = training.fresh(1), training.config
    for actors in training.iterations():
        adapted = policy.take(torch.zeros(actors.num_tasks, dtype=torch.long))
        optimiser = make_optimiser(adapted, config.learning_rate)
        for _ in range(REPTILE_UPDATES):
            update(adapted, optimiser, actors.play(adapted), config)
        share = 1 - training.env_steps / training.budget
        with torch.no_grad():
            for name, value in policy.tensors.items():
                value += share * (adapted.tensors[name].mean(0) - value)
    return policy


def maml(training: Training, second_order: bool = True, rate: float = MAML_RATE) -> Policies:
    """Descend the loss after one update, through that update (Finn et al. 2017); or leave it out of the
    derivative, first-order MAML. As there, the choice of the first episodes is not differentiated.
    """
    policy, config = training.fresh(1), training.config
    optimiser = make_optimiser(policy, config.learning_rate)
    for actors in training.iterations():
        adapted = inner_update(spread(policy, actors.num_tasks), actors, config, rate, second_order)
        step(optimiser, loss_of(adapted, actors, config))
    return policy


def inner_update(policies: Policies, actors: Actors, config, rate: float, second_order: bool) -> Policies:
    """The policies after one step of gradient descent, as functions of those before."""
    values = policies.parameters()
    total = loss(policies, actors.play(policies), config.gamma, config.entropy_coef, config.baseline)
    gradients = torch.autograd.grad(total, values, create_graph=second_order)
    names = zip(policies.tensors, values, gradients, strict=True)
    return Policies({name: v - rate * g for name, v, g in names}, policies.activation)


def spread(policy: Policies, num_copies: int) -> Policies:
    """One policy as `num_copies` views; gradients reach the one."""
    tensors = {name: value.expand(num_copies, -1, -1) for name, value in policy.tensors.items()}
    return Policies(tensors, policy.activation)


def loss_of(policies: Policies, actors: Actors, config):
    """Mean over tasks of the loss on new episodes."""
    episodes = actors.play(policies)
    total = loss(policies, episodes, config.gamma, config.entropy_coef, config.baseline)
    return total / actors.num_tasks


def step(optimiser, value) -> None:
    """One step of the optimiser down the value."""
    optimiser.zero_grad()
    value.backward()
    optimiser.step()


def train(method: str, training: Training, tasks, seed: int) -> Start:
    """Train one opponent; tell where each of `tasks`, numbers of query types, starts. `seed` draws that."""
    types, index = training.types, np.zeros(len(tasks), np.int64)
    if method == "random":
        policies, index = training.fresh(len(tasks), seed), np.arange(len(tasks))
    elif method == "same_type":
        policies, index = pretrain(training, types.query), np.searchsorted(types.query, tasks)
    elif method == "different_type":
        policies, index = pretrain(training, types.support), different(types, tasks, seed)
    elif method == "joint":
        policies = joint(training)
    elif method == "reptile":
        policies = reptile(training)
    else:
        policies = maml(training, second_order=method == "maml")
        return Start(policies, index, training.env_steps, MAML_RATE)
    return Start(policies, index, training.env_steps)


def different(types: Types, tasks, seed: int):
    """For each task the place in `support` of a random type, of another latent group where there are any."""
    chance = stream(seed, "evaluation").random((len(tasks), len(types.support)))
    if types.group is not None:
        chance -= types.group[tasks][:, None] == types.group[types.support]
    return chance.argmax(1)


def train_all(methods, training_of, tasks, seed: int, comm) -> dict[str, Start]:
    """Every opponent, each trained whole by one rank, so that numbers do not depend on how many there are.

    `training_of()` gives a `Training` whose budget is not spent yet.
    """
    mine = {method: train(method, training_of(), tasks, seed) for method in methods[comm.rank :: comm.size]}
    trained = {}
    for part in comm.allgather_object(mine):
        trained |= part
    return {method: trained[method] for method in methods}
