"""The simulator's one-step model of all agents as a file. The planner that acts on it is no network."""

from typing import Any

import torch
from torch import nn

from common import export as shared
from common.evaluation import Row
from common.export import Network, Port, Section, bullets
from persim.config import Config
from persim.limits import stop
from persim.simulator import Simulator, factored

NO_PLANNER = (
    "PerSim acts by planning, and the planner (a search at each step) is not exported: the file is the "
    "simulator that it searches on"
)

AHEAD = "To look further ahead, hand each network's prediction back to it as the next state."
EARNED = " The last state is what was earned so far: its change in a step is the predicted reward."


class OneStep(nn.Module):
    """Next states as each active member predicts them."""

    active: torch.Tensor

    def __init__(self, simulator: Simulator, pooled: bool):
        super().__init__()
        self.simulator, self.pooled = simulator, pooled
        self.register_buffer("active", simulator.active_members.nonzero()[:, 0])

    def forward(self, agent: torch.Tensor, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """`[M, B, d]` of agents `[B]` in states `[B, d]` under actions `[B]` or `[B, a]`."""
        model = self.simulator
        u = model.factors().index_select(1, 0 * agent if self.pooled else agent)
        v = model.state_factors(state.expand(model.num_models, -1, -1))
        if model.num_actions:
            w = (model.action + model.action_bias).index_select(1, action)
        else:
            w = model.action_factors(action.expand(model.num_models, -1, -1))
        change = (factored(u, v, w) * model.target_scale).index_select(0, self.active)
        if model.history is None:
            return stop(model.walls, state + change)
        whole = state.expand(len(change), -1, -1)
        return model.history.follow(whole, stop(model.walls, model.history.foreseen(whole) + change), action)


def export(
    config: Config,
    simulator: Simulator,
    data: dict[str, Any],
    rows: list[Row],
    settings: Any,
    iteration: int | None,
) -> None:
    """Write the simulator with its card to the folder `settings.export`; on one rank only."""
    names, d = [str(name) for name in data["names"]], simulator.state_size
    members = int(simulator.active_members.sum())
    states = f"the state before the step: {', '.join(map(str, data['state_names']))}"
    number = torch.zeros(2, dtype=torch.int64)
    if simulator.num_actions:
        labels = data.get("action_labels")
        names_of = f" ({', '.join(labels)})" if labels else ""
        action = Port(number, f"0 to {simulator.num_actions - 1}{names_of}")
    else:
        action = Port(torch.zeros(2, simulator.sizes["action_size"]), "in the units of the log")
    network = Network(
        name="simulator",
        title=f"A simulator of {len(names)} agents: {config.environment}",
        module=OneStep(simulator.cpu(), config.pooled),
        inputs={
            "agent": Port(
                torch.zeros(2, dtype=torch.int64), "its number: the place of its name in index.json, from 0"
            ),
            "state": Port(torch.zeros(2, d), states),
            "action": action,
        },
        outputs={
            "next_state": Port(
                torch.zeros(members, 2, d), f"as each of {members} networks predicts it", axis=1
            )
        },
        card=about(config, simulator, names, rows, iteration),
        notes=AHEAD + (EARNED if config.learn_reward else ""),
    )
    index = {
        "system": "persim",
        "environment": config.environment,
        "agents": names,
        "states": list(map(str, data["state_names"])),
        "not_exported": NO_PLANNER,
    }
    shared.export(settings.export, [network], index, settings.onnx)


def about(
    config: Config, simulator: Simulator, names: list[str], rows: list[Row], iteration: int | None
) -> list[Section]:
    """The sections of a card."""
    tested = ("median_r2", "rmse", "return")  # of predictions, and of planning on them
    measured = [r for r in rows if r["metric"] in tested and r["mean"] is not None]
    lines = [
        (
            f"{r['metric']}, {r['method']}" + (f", agent {r['agent']}" if "agent" in r else ""),
            f"{r['mean']:.4g}",
        )
        for r in measured
    ]
    return [
        ("What it is for", f"One step of the agents of the log, whom index.json names. {NO_PLANNER}."),
        ("Measured predictions, and returns of planning", bullets(lines) if lines else "none"),
        shared.training(
            config,
            iteration,
            ("algorithm", f"PerSim, {simulator.num_models} networks of {simulator.num_factors} factors"),
            ("data", f"{config.dataset}, {len(names)} agents"),
        ),
    ]
