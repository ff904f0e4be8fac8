"""One step of the recurrent policy as a file: an observation and what is remembered in, an action out."""

from typing import Any

import torch
from torch import nn

from common import export as shared
from common.errors import UserError
from common.evaluation import Row
from common.export import Network, Port, Section, bullets
from rl2.belief import BeliefPolicy
from rl2.config import Config
from rl2.policy import RecurrentPolicy, State


class Step(nn.Module):
    """The step of an `Actor` that takes the most likely action, without anything kept between calls.

    The last observation is left out where the policy's inputs do not hold it (`plain`), since files may not
    have inputs without an effect. Indices -1 in place of the last observation and action, or zeros where they
    are vectors, stand for the beginning of a meta-episode.
    """

    def __init__(self, policy: RecurrentPolicy | BeliefPolicy, action_space: Any):
        super().__init__()
        self.policy, self.to_space = policy, shared.ToSpace(action_space, policy.scaled)

    def forward(
        self,
        observation: torch.Tensor,
        reward: torch.Tensor,
        done: torch.Tensor,
        *remembered: torch.Tensor,
    ) -> State:
        """The action, then what the next call is given: last observation, last action and memory."""
        features, seen = self.policy.features, observation
        plain = features.encoder == "plain"
        before, last_action, *memory = (observation, *remembered) if plain else remembered
        taken = last_action
        if features.discrete_observation:
            here, before = (shared.one_hot(index, features.num_observations) for index in (seen, before))
        else:
            here = seen = features.observation(observation)
        if features.discrete_action:
            taken = shared.one_hot(last_action, features.num_actions)
        x = features.join(here, before, taken, reward[:, None], done[:, None])
        distribution, _, state = self.policy.step(x, observation, tuple(memory))
        action = distribution.mode()
        kept = () if plain else (seen.clone(),)
        return (self.to_space(action), *kept, action.clone(), *state)


def check(config: Config) -> None:
    """Refuse what is no recurrent step that is one and the same function at each time."""
    if config.architecture not in ("lstm", "gru", "varibad"):
        raise UserError(
            f"--export: steps of --architecture {config.architecture} cannot be exported, only those of "
            "lstm, gru and varibad, which do the same at every step"
        )


def network(
    config: Config, policy: RecurrentPolicy | BeliefPolicy, family: Any, about: list[Section]
) -> Network:
    """The file and card of a policy; in float32, whatever the arithmetic of the run was."""
    policy.actor.autocast = False
    observation, action = (
        shared.observation_port(family.observation_space),
        shared.action_port(family.action_space),
    )
    memory = [f"memory_{i}" for i in range(len(policy.initial_state(2)))]
    number = torch.zeros(2)
    first = {True: "-1", False: "zeros"}
    features = policy.features
    state = (
        {}
        if features.encoder == "plain"
        else {
            "last_observation": Port(
                observation.example, f"at the first step {first[features.discrete_observation]}"
            )
        }
    )
    state |= {
        "last_action": Port(action.example, f"at the first step {first[features.discrete_action]}"),
        **{
            name: Port(part, "at the first step zeros", axis=1)
            for name, part in zip(memory, policy.initial_state(2), strict=True)
        },
    }
    return Network(
        name="policy",
        title=f"A policy that learns while it acts: {config.environment}",
        module=Step(policy, family.action_space),
        inputs={
            "observation": observation,
            "reward": Port(number, "of the step before, at the first step 0"),
            "done": Port(number, "1 if an episode ended with the step before, else 0; at the first step 1"),
            **state,
        },
        outputs={
            "action": action,
            **{
                f"next_{name}": Port(port.example, f"{name} of the next call", port.axis)
                for name, port in state.items()
            },
        },
        card=about,
        notes=(
            f"Begin anew with each agent, not with each episode; its memory was trained for "
            f"{config.meta_episode_len} steps with an agent. `next_last_action` is what the network chose "
            "before it was turned into the environment's units: hand it back as it is."
            + (
                " So is `next_last_observation`, which is normalised."
                if config.normalise_observations and "last_observation" in state
                else ""
            )
        ),
    )


def export(
    config: Config,
    policy: RecurrentPolicy | BeliefPolicy,
    family: Any,
    rows: list[Row],
    settings: Any,
    iteration: int | None,
    env_steps: int | None = None,
) -> None:
    """Write the policy with its card to the folder `settings.export`; on one rank only.

    It was trained for `env_steps`, or those that its iterations have where all are as long.
    """
    if env_steps is None and iteration is not None:
        env_steps = iteration * config.meta_episodes_per_policy_update * config.meta_episode_len
    episodes = settings.episodes or config.episodes
    algorithm = "VariBAD, policy" if config.architecture == "varibad" else f"RL², {config.architecture}"
    what = f"{episodes} episodes" if episodes else f"{config.meta_episode_len} steps"
    measured = [r for r in rows if r["metric"] == "return"]
    lines = [
        (r["method"], f"{r['mean']:.2f}" + ("" if r["se"] is None else f" ± {r['se']:.2f}")) for r in measured
    ]
    about = [
        (
            "What it is for",
            f"Any agent of {config.environment}: "
            + (
                "it is given the agent's parameters behind the observation."
                if config.see_task
                else "it is not told which, and finds out from rewards. It has no list of agents."
            ),
        ),
        (
            "Measured returns",
            f"Return of {what} in a task, mean and standard error over "
            f"{settings.instances} fresh tasks, seed {settings.seed}, actions: {settings.actions}.\n\n"
            + bullets(lines),
        ),
        shared.training(
            config,
            iteration,
            ("algorithm", f"{algorithm} of {config.num_features} units"),
            ("environment steps", "not recorded" if env_steps is None else f"{env_steps:,}"),
        ),
    ]
    index = {"system": "rl2", "environment": config.environment, "meta_episode_len": config.meta_episode_len}
    shared.export(settings.export, [network(config, policy, family, about)], index, settings.onnx)
