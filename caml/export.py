"""The medoids as files: policies to start from, not ones that are finished for any agent."""

from typing import Any

import torch
from gymnasium.spaces import Discrete
from torch import nn

from caml.config import Config
from caml.learner import Learner
from caml.policy import Policies
from caml.problem import query_of
from common import export as shared
from common.evaluation import Row
from common.export import Network, Port, Section, bullets, one_hot


class Exported(nn.Module):
    """One policy, whose parameters can be trained on: observations `[B, ...]` to actions and what training
    draws them from.
    """

    def __init__(self, policy: Policies, observation_space: Any, action_space: Any):
        super().__init__()
        self.activation, self.names = policy.activation, tuple(policy.tensors)
        self.size = int(observation_space.n) if isinstance(observation_space, Discrete) else 0
        self.to_space = shared.ToSpace(action_space)
        for name, value in policy.tensors.items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(value.detach().clone()))

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The most likely actions `[B, ...]`; logits `[B, A]`, or means and log standard deviations."""
        x = one_hot(observation, self.size) if self.size else observation
        tensors = {name: self.get_parameter(name.replace(".", "_")) for name in self.names}
        policy = Policies({**tensors}, self.activation)
        outputs = policy(x[None])[0]
        if not policy.gaussian:
            return outputs.argmax(-1), outputs
        return self.to_space(outputs), outputs, policy.log_std[:, :, 0].expand_as(outputs)


def distribution_ports(policies: Policies) -> dict[str, Port]:
    """What actions are drawn from while a policy is trained."""
    example = torch.zeros(2, policies.num_outputs)
    if not policies.gaussian:
        return {"logits": Port(example, "logits of the actions, which training drew from them")}
    return {
        "mean": Port(example, "of the Gaussian from which training drew actions, before they were clipped"),
        "log_std": Port(example, "logarithm of its standard deviation, the same for all rows"),
    }


def export(learner: Learner, rows: list[Row], settings: Any, iteration: int | None) -> None:
    """Write each medoid with its card to the folder `settings.export`; on one rank only."""
    config, family, start = learner.config, learner.problem.family, learner.start()
    agents = learner.medoids["agent"].long().tolist()
    networks = [
        Network(
            name=f"start_{j}",
            title=f"Start {j} of {len(start.policies)}: {config.environment}",
            module=Exported(start.policies.take([j]), family.observation_space, family.action_space),
            inputs={"observation": shared.observation_port(family.observation_space)},
            outputs={
                "action": shared.action_port(family.action_space),
                **distribution_ports(start.policies),
            },
            card=sections(config, learner, agents[j], rows, settings, iteration),
            entry={"start": j, "adapted_to_agent": agents[j]},
        )
        for j in range(len(start.policies))
    ]
    index = {"system": "caml", "environment": config.environment, "episodes_to_choose": config.num_rollouts}
    shared.export(settings.export, networks, index, settings.onnx)


def sections(
    config: Config, learner: Learner, agent: int, rows: list[Row], settings: Any, iteration: int | None
) -> list[Section]:
    """The sections of a card."""
    curve = [r for r in rows if (r["method"], r["metric"], r.get("agent")) == ("caml", "return", "all")]
    lines = [(f"after {r['update']} updates", shared.figure(r)) for r in curve]
    num_query = len(query_of(learner.problem))
    return [
        (
            "What it is for",
            "A start, not a finished policy. With a new agent, play a few episodes with each start (here "
            f"{config.num_rollouts} in all), take the best, and update it by the policy gradient. It is a "
            f"copy of what was adapted to agent {agent} of the training population.",
        ),
        (
            "Measured returns",
            f"Mean and standard error over {num_query} agents that were not trained on, {settings.repeats} "
            f"times each, seed {settings.seed}: the best of the starts for each of them, then updates on "
            f"{config.num_rollouts} episodes each, actions drawn.\n\n" + bullets(lines),
        ),
        shared.training(
            config,
            iteration,
            ("algorithm", f"CAML, {config.num_medoids} medoids of {config.pool_size} policies"),
            ("environment steps", f"{learner.env_steps:,}"),
        ),
    ]
