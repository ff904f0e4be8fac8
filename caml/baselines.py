"""Other ways to a start for few-shot adaptation, each under the interaction budget of CAML's meta-training.

All train by the same policy gradient, with the agents that CAML drew in the same iteration (`same_agent` with
the query agents, as upper reference), until they have spent as many environment steps.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from caml.adapt import loss, make_optimiser, update
from caml.config import Config
from caml.fewshot import Start
from caml.policy import Policies, num_weights, sizes_of
from caml.problem import groups_of, query_of, support_of
from caml.rollout import Rollouts
from common.optim import AdamW
from common.progress import at
from common.runs.seeding import stream
from envs.problem import Problem
from mpi_utils.comm import Comm

# Reptile adapts as often to an agent as the evaluation does.
REPTILE_UPDATES = 5
# Of MAML's own update, plain gradient descent; the best of 0.3, 1, 3 and 10 on seeds 0 and 1 of the particle.
MAML_RATE = 3.0
METHODS = ("joint", "same_agent", "different_agent", "reptile", "maml", "fomaml", "random")


class Training:
    """Environments for one baseline's training, and the steps it has spent of its `budget`."""

    def __init__(self, config: Config, problem: Problem, budget: int):
        self.config, self.problem = config, problem
        self.budget, self.env_steps, self.iteration = budget, 0, 0

    def fresh(self, num_policies: int, seed: int | None = None) -> Policies:
        """New policies, of the run's seed or another."""
        config, sizes = self.config, sizes_of(self.problem.family, self.config.num_features)
        rng = stream(config.seed if seed is None else seed, "weights")
        uniform = rng.random((num_policies, num_weights(*sizes)), np.float32)
        return Policies.fresh(uniform, *sizes, activation=config.activation, log_std=config.initial_log_std)

    def iterations(self, agents: np.ndarray | None = None) -> Iterator[Rollouts]:
        """Yield rollouts with `agents`, or with those that CAML draws in the same iteration, while steps are
        left.

        The last iteration may pass the budget by a part of itself.
        """
        config, problem = self.config, self.problem
        while self.env_steps < self.budget:
            rng = stream(config.seed, "tasks", self.iteration, 1)
            drawn = rng.choice(support_of(problem), config.tasks_per_iteration) if agents is None else agents
            rollouts = Rollouts(problem, drawn, config, self.iteration)
            try:
                yield rollouts
            finally:
                rollouts.close()
            self.env_steps += int(rollouts.num_steps.sum())
            self.iteration += 1


def pretrain(training: Training, agents: np.ndarray) -> Policies:
    """One policy for each of `agents`, which share the budget."""
    policies = training.fresh(len(agents))
    optimiser = make_optimiser(policies, training.config.learning_rate)
    for rollouts in training.iterations(agents):
        update(policies, optimiser, rollouts.play(policies), training.config)
    return policies


def joint(training: Training) -> Policies:
    """One policy for all agents: each update follows the mean gradient over the iteration's agents."""
    policy, config = training.fresh(1), training.config
    optimiser = make_optimiser(policy, config.learning_rate)
    for rollouts in training.iterations():
        copies = spread(policy, rollouts.num_agents)
        step(optimiser, loss_of(copies, rollouts, config))
    return policy


def reptile(training: Training) -> Policies:
    """Move towards the mean of the policies adapted to the agents (Nichol et al. 2018); the step falls from
    1 to 0.
    """
    policy, config = training.fresh(1), training.config
    for rollouts in training.iterations():
        adapted = policy.take(torch.zeros(rollouts.num_agents, dtype=torch.long))
        optimiser = make_optimiser(adapted, config.learning_rate)
        for _ in range(REPTILE_UPDATES):
            update(adapted, optimiser, rollouts.play(adapted), config)
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
    for rollouts in training.iterations():
        adapted = inner_update(spread(policy, rollouts.num_agents), rollouts, config, rate, second_order)
        step(optimiser, loss_of(adapted, rollouts, config))
    return policy


def inner_update(
    policies: Policies, rollouts: Rollouts, config: Config, rate: float, second_order: bool
) -> Policies:
    """The policies after one step of gradient descent, as functions of those before."""
    values = policies.parameters()
    total = loss(policies, rollouts.play(policies), config)
    gradients = torch.autograd.grad(total, values, create_graph=second_order)
    names = zip(policies.tensors, values, gradients, strict=True)
    return Policies({name: v - rate * g for name, v, g in names}, policies.activation)


def spread(policy: Policies, num_copies: int) -> Policies:
    """One policy as `num_copies` views; gradients reach the one."""
    tensors = {name: value.expand(num_copies, -1, -1) for name, value in policy.tensors.items()}
    return Policies(tensors, policy.activation)


def loss_of(policies: Policies, rollouts: Rollouts, config: Config) -> torch.Tensor:
    """Mean over agents of the loss on new episodes."""
    return loss(policies, rollouts.play(policies), config) / rollouts.num_agents


def step(optimiser: AdamW, value: torch.Tensor) -> None:
    """One step of the optimiser down the value."""
    optimiser.zero_grad()
    value.backward()
    optimiser.step()


def train(method: str, training: Training, agents: np.ndarray, seed: int) -> Start:
    """Train one baseline; tell where each of `agents`, numbers of query agents, starts. `seed` draws that."""
    at(f"training {method}")
    problem, index = training.problem, np.zeros(len(agents), np.int64)
    if method == "random":
        policies, index = training.fresh(len(agents), seed), np.arange(len(agents))
    elif method == "same_agent":
        query = query_of(problem)
        policies, index = pretrain(training, query), np.searchsorted(query, agents)
    elif method == "different_agent":
        policies, index = pretrain(training, support_of(problem)), different(problem, agents, seed)
    elif method == "joint":
        policies = joint(training)
    elif method == "reptile":
        policies = reptile(training)
    else:
        policies = maml(training, second_order=method == "maml")
        return Start(policies, index, training.env_steps, MAML_RATE)
    return Start(policies, index, training.env_steps)


def different(problem: Problem, agents: np.ndarray, seed: int) -> np.ndarray:
    """For each of `agents` the place in `support` of a random one, of another latent group where there are
    any.
    """
    support, group = support_of(problem), groups_of(problem)
    preference = stream(seed, "evaluation").random((len(agents), len(support)))
    if group is not None:
        preference -= group[agents][:, None] == group[support]
    return preference.argmax(1)


def train_all(
    methods: tuple[str, ...],
    training_of: Callable[[], Training],
    agents: np.ndarray,
    seed: int,
    comm: Comm,
) -> dict[str, Start]:
    """Every baseline, each trained whole by one rank, so that numbers do not depend on how many there are.

    `training_of()` gives a `Training` whose budget is not spent yet.
    """
    mine = {method: train(method, training_of(), agents, seed) for method in methods[comm.rank :: comm.size]}
    trained: dict[str, Start] = {}
    for part in comm.allgather_object(mine):
        trained |= part
    return {method: trained[method] for method in methods}
