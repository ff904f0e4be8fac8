"""One training of a method within a budget of environment steps, its learning curve, and its run folder."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.protocols import Actor
from common.runs import checkpoint
from common.runs.run_folder import write_config
from comparison.config import Settings, budget_of
from comparison.problem import Curve, Evaluated, evaluate_actor
from envs import Problem

POINTS = 8  # of the curves of returns against steps
ITERATIONS = 40  # of training at least, where smaller batches allow it


@dataclasses.dataclass(frozen=True)
class Training:
    """What is trained on, with which settings and seed, and the run folder that keeps it ("": none)."""

    problem: Problem
    settings: Settings
    seed: int
    num_policies: int
    folder: str = ""

    @property
    def budget(self) -> int | None:
        """Steps in which it may train; None where its recipe says so."""
        return budget_of(self.settings, self.problem.environment)

    def test(self, actor: Actor, num_episodes: int = 0) -> Evaluated:
        """What an actor reaches in the episodes of the test (0), or in the first of them."""
        return evaluate_actor(self.problem, actor, num_episodes or self.settings.episodes, self.seed)

    def iterations(self, most: int, usual: int) -> int:
        """How many iterations of at most `most` steps fit into the budget; `usual` where there is none.

        Raises `UserError` if not even one does.
        """
        if self.budget is None:
            return usual
        if self.budget < most:
            raise UserError(
                f"--budget {self.budget}: the least that it can train for takes {most} steps; give more"
            )
        return self.budget // most

    def keep(self, system: str, config: Any, iteration: int, learner: Any) -> None:
        """Write what was trained as a run folder."""
        if self.folder:
            path = Path(self.folder)
            placed = dataclasses.replace(config, checkpoint_dir=str(path.parent), model_name=path.name)
            write_config(path, {"system": system, **dataclasses.asdict(placed)})
            checkpoint.save(path, iteration, learner.state_dict())
            checkpoint.prune(path, 1)


def train(
    learner: Any,
    iterations: int,
    steps_of: Callable[[dict[str, float]], float],
    look: Callable[[], Evaluated | None],
    budget: int = 0,
    most: int = 0,
) -> tuple[int, int, Curve]:
    """Train, and go on while `most` more steps, an iteration's, surely fit into a `budget`.

    Returns iterations and steps taken, and the learning curve: what `look()` finds at some times, or None as
    long as nobody can act. `steps_of(metrics)` counts all steps so far.
    """
    i, steps, looks = 0, 0, 0
    curve: Curve = []
    while i < iterations or (budget and steps + most <= budget):
        steps = int(steps_of(learner.train_iteration(i)))
        i += 1
        share = steps / budget if budget else i / iterations
        if share * POINTS >= looks + 1 and share < 1 - 0.5 / POINTS:
            looks = int(share * POINTS)
            if (found := look()) is not None:
                curve.append((steps, found))
    return i, steps, curve


def fitting(wanted: int, step: int, most: int) -> int:
    """The multiple of `step` that is next below what is wanted, between `step` and `most`."""
    return max(step, min(most, wanted // step * step))
