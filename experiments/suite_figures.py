"""Pictures of what a trained RL^2 does in tasks of the suite that it has not met:

    python -m experiments.suite_figures RUN --out results/rl2/half_cheetah_vel.png [--tasks 0.5 1.5 2.5]

half_cheetah_vel: speed against time under hidden target speeds (m/s). grid_navi: the walk of each episode to
hidden goals, given as cells 5 x + y. Actions are the most likely ones.
"""

import argparse
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import rl2
from common import plots
from common.config import PICTURE, check_output
from common.errors import UserError
from common.runs.seeding import stream
from envs.grid_navi import GOALS, SIZE
from mpi_utils.comm import Comm, guard

TASKS = {"half_cheetah_vel": (0.5, 1.5, 2.5), "grid_navi": (12, 13, 20)}
EPISODES = {"half_cheetah_vel": 2, "grid_navi": 3}
WINDOW = 10  # steps over which a speed is the mean: a stride of the cheetah is about as long


def play(actor: Any, env: Any, num_steps: int, read: Any) -> np.ndarray:
    """What `read(env)` `[N]` is before the first step and after each of `num_steps`, `[num_steps + 1, N]`."""
    observation, reward, done = env.reset()[0], None, None
    actor.reset(env.num_envs)
    seen = [read(env, observation)]
    for _ in range(num_steps):
        observation, reward, terminated, truncated, _ = env.step(actor.act(observation, reward, done))
        done = terminated | truncated
        seen.append(read(env, observation))
    return np.array(seen)


def draw_speeds(actor: Any, family: Any, targets: list[float], path: Path) -> None:
    """A line of speed against time, and one for each target."""
    length = family.max_episode_len
    steps = EPISODES["half_cheetah_vel"] * length
    with closing(family.make_vec({"target": np.array(targets)}, rng=stream(0, "evaluation"))) as env:
        place = play(actor, env, steps, lambda env, _: env.copies.position[:, 0].copy())
    drawn = plots.figure(7.5, 3.4)
    axes = drawn.subplots()
    seconds = np.arange(1, length) * family.dt
    for number, target in enumerate(targets):
        for episode in range(EPISODES["half_cheetah_vel"]):
            walked = np.diff(place[episode * length : (episode + 1) * length, number]) / family.dt
            begin = np.arange(1, length) - np.minimum(np.arange(1, length), WINDOW)
            sums = np.concatenate([[0], np.cumsum(walked)])
            speed = (sums[1:] - sums[begin]) / (np.arange(1, length) - begin)
            label = f"hidden target {target:g} m/s" if episode == 0 else None
            axes.plot(episode * length * family.dt + seconds, speed, color=f"C{number}", label=label)
        axes.axhline(target, color=f"C{number}", linestyle="--", linewidth=0.8)
    for episode in range(1, EPISODES["half_cheetah_vel"]):
        axes.axvline(episode * length * family.dt, color="0.5", linewidth=0.8)
    axes.set(
        xlabel="seconds; a second episode begins at the line", ylabel="speed (m/s), mean of half a second"
    )
    axes.set(xlim=(0, steps * family.dt), title="Three cheetahs, one policy, targets that it is not shown")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    plots.save(drawn, path, dpi=130)


def draw_walks(actor: Any, family: Any, goals: list[float], path: Path) -> None:
    """A row for each goal, a column for each episode."""
    length, cells = family.max_episode_len, [int(goal) for goal in goals]
    if wrong := [cell for cell in cells if cell not in GOALS]:
        raise UserError(
            f"--tasks {wrong[0]}: no goal of grid_navi; give some of {', '.join(map(str, GOALS))}"
        )
    episodes = EPISODES["grid_navi"]
    with closing(family.make_vec({"goal": np.array(cells)}, rng=stream(0, "evaluation"))) as env:
        at = play(actor, env, episodes * length, lambda _, observation: np.array(observation))
    drawn = plots.figure(2.2 * episodes, 2.2 * len(cells))
    panels = drawn.subplots(len(cells), episodes, sharex=True, sharey=True, squeeze=False)
    for row, (cell, line) in enumerate(zip(cells, panels, strict=True)):
        for episode, axes in enumerate(line):
            walk = at[episode * length : (episode + 1) * length, row]
            shift = np.linspace(
                -0.12, 0.12, len(walk)
            )  # later steps up and to the right, so that none is hidden
            axes.plot(walk // SIZE + shift, walk % SIZE + shift, marker=".", markersize=4)
            axes.plot(cell // SIZE, cell % SIZE, "*", color="C1", markersize=14, zorder=0)
            axes.set(xlim=(-0.5, SIZE - 0.5), ylim=(-0.5, SIZE - 0.5), xticks=[], yticks=[], aspect="equal")
            axes.hlines(np.arange(SIZE) + 0.5, -0.5, SIZE - 0.5, color="0.85", linewidth=0.8)
            axes.vlines(np.arange(SIZE) + 0.5, -0.5, SIZE - 0.5, color="0.85", linewidth=0.8)
            if row == 0:
                axes.set_title(f"episode {episode + 1}", fontsize=10)
    plots.save(drawn, path, dpi=130)


def main(comm: Comm) -> None:
    """Load, play and draw."""
    parser = argparse.ArgumentParser("python -m experiments.suite_figures")
    parser.add_argument("run", help="a run folder of rl2 on half_cheetah_vel or grid_navi")
    parser.add_argument("--out", required=True, help="the picture, .png or .svg")
    parser.add_argument("--tasks", type=float, nargs="+", help="target speeds (m/s), or cells of goals")
    settings = parser.parse_args()
    with comm.agree():
        if not comm.is_root:
            return
        check_output(f"--out {settings.out}", settings.out, PICTURE)
        problem, actor = rl2.load_problem(settings.run), rl2.load(settings.run)
        name = problem.environment
        if name not in TASKS:
            raise UserError(
                f"{settings.run}: was trained in {name}; there are pictures of {' and '.join(TASKS)}"
            )
        tasks = settings.tasks or list(TASKS[name])
        if not all(map(math.isfinite, tasks)):
            raise UserError(f"--tasks {tasks}: give finite numbers")
        draw = draw_speeds if name == "half_cheetah_vel" else draw_walks
        draw(actor, problem.family, tasks, Path(settings.out))
        print(settings.out)


if __name__ == "__main__":
    guard(main)
