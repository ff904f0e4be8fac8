"""Films of agents side by side, written as MP4 or GIF."""

import importlib.util
import itertools
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.protocols import Actor

FRAMES_PER_SECOND = {".mp4": 25, ".gif": 12.5}  # at most; a GIF of as many would be too large for a page
HOLD = 1.0  # seconds for which the end stands
ACROSS = 1260  # pixels, unless one picture is wider
LINE, MARGIN = 17, 6  # height of a line of text and space between pictures, in pixels
PALETTE, LOOKED_AT = 64, 16  # colours of a GIF, and the first frames from which they are chosen
MOST_AGENTS = 5  # unless their numbers are given


@dataclass
class Scene:
    """Agents that act side by side, row i of `env` being called `labels[i]`.

    Each acts for at most `steps` and so many `episodes`, or as many as it ends in these steps if that is 0.
    """

    family: Any  # whose environments they are
    env: Any  # a VectorEnv
    actor: Actor
    labels: list[str]
    steps: int
    episodes: int = 1


def check(path: str) -> None:
    """Refuse a film that cannot be made here; its path is checked with those of all outputs."""
    if path.lower().endswith(".mp4") and not importlib.util.find_spec("imageio_ffmpeg"):
        raise UserError(
            f"--video {path}: MP4 needs the extra `video`: pip install '.[video]'; or give a .gif"
        )


def chosen(numbers: str, num: int, what: str) -> np.ndarray:
    """The numbers that a flag's text has, with commas between, each of 0..`num` - 1; `what` has them."""
    words = [word.strip() for word in numbers.split(",")]
    wrong = [word for word in words if not word.isdecimal() or int(word) >= num]
    if wrong:
        raise UserError(
            f"--video_agents {numbers}: {what} has no agent {wrong[0]!r}; give some of 0 to {num - 1}"
        )
    return np.array([int(word) for word in words])


def spread(num: int) -> np.ndarray:
    """Numbers of a few of `num` agents, the first, the last and some between."""
    return np.unique(np.linspace(0, num - 1, min(num, MOST_AGENTS)).round().astype(int))


def label(name: str, parameters: dict[str, np.ndarray], row: int) -> str:
    """An agent's name and those of its parameters that are single numbers."""
    told = [f"{key} {values[row]:.3g}" for key, values in parameters.items() if np.ndim(values) == 1]
    return ", ".join([name, *told])


def shoot(scene: Scene, make_drawing: Any, path: str, title: str) -> np.ndarray:
    """Play the scene, write the film to `path`; the returns `[N]`.

    `make_drawing(family, env)` draws environments.
    """
    returns = np.zeros(scene.env.num_envs)
    scene.actor.reset(scene.env.num_envs)
    observation = np.array(scene.env.reset()[0])
    drawing = make_drawing(scene.family, scene.env)
    most = FRAMES_PER_SECOND[Path(path).suffix.lower()]
    every = max(1, round(drawing.steps_per_second / most))
    fps = drawing.steps_per_second / every
    frames = play(scene, observation, drawing, every, round(HOLD * fps), returns, title)
    write(Path(path), frames, fps)
    return returns


def play(
    scene: Scene,
    observation: np.ndarray,
    drawing: Any,
    every: int,
    hold: int,
    returns: np.ndarray,
    title: str,
) -> Iterator[np.ndarray]:
    """The frames of a scene; a row stands still once it has ended. `returns [N]` are counted on the way."""
    running, ended = np.ones(len(returns), bool), np.zeros(len(returns), int)
    drawing.note()
    panels = [np.array(frame) for frame in drawing.frames()]
    captions, reward, done = drawing.captions(), None, None
    for step in range(scene.steps):
        if step % every == 0:
            yield sheet(panels, scene.labels, told(captions, returns, ended, running, scene), title)
        action = scene.actor.act(observation, reward, done, running)
        observation, reward, terminated, truncated, _ = scene.env.step(action)
        # Copies: environments may reuse their arrays, and actors remember what they saw.
        observation, reward = np.array(observation), np.array(reward, np.float64)
        done = np.logical_or(terminated, truncated)
        returns += np.where(running, reward, 0.0)
        ended += running & done
        if scene.episodes:
            running = running & (ended < scene.episodes)
        if not running.any():
            break
        drawing.note()
        if (step + 1) % every == 0:
            shown, said = drawing.frames(), drawing.captions()
            for i in np.flatnonzero(running):
                panels[i], captions[i] = shown[i], said[i]
    last = sheet(panels, scene.labels, told(captions, returns, ended, running, scene), title)
    yield from itertools.repeat(last, 1 + hold)


def told(
    captions: list[str], returns: np.ndarray, ended: np.ndarray, running: np.ndarray, scene: Scene
) -> list[str]:
    """What stands beside each picture: episode, return, and what the drawing says."""
    lines = []
    for caption, value, over, on in zip(captions, returns, ended, running, strict=True):
        episode = "" if scene.episodes == 1 else f"episode {over + on}, "
        lines.append(f"{episode}return {value:.1f}" + (f", {caption}" if caption else ""))
    return lines


def sheet(panels: list[np.ndarray], labels: list[str], captions: list[str], title: str) -> np.ndarray:
    """Pictures in rows, each under its label and caption, and a title below all."""
    from PIL import Image, ImageDraw

    height, width = panels[0].shape[:2]
    columns = min(len(panels), max(1, ACROSS // (width + MARGIN)))
    rows = -(-len(panels) // columns)
    beside = width >= 500  # one line has room for both
    letters = (width - 4) // 7
    wrapped = [textwrap.wrap(text, letters) for text in labels]
    head = LINE * (1 if beside else max(map(len, wrapped)) + 1)
    if not beside and max(len(caption) for caption in captions) > letters:
        captions = [caption.replace(", ", "\n", 1) for caption in captions]
    head += 0 if beside else LINE * max(caption.count("\n") for caption in captions)
    across, down = columns * (width + MARGIN) + MARGIN, rows * (head + height + MARGIN) + LINE + MARGIN
    page = Image.new("RGB", (across + across % 2, down + down % 2), "white")  # H.264 wants even numbers
    draw = ImageDraw.Draw(page)
    for i, (panel, text, caption) in enumerate(zip(panels, wrapped, captions, strict=True)):
        x, y = MARGIN + i % columns * (width + MARGIN), MARGIN // 2 + i // columns * (head + height + MARGIN)
        if beside:
            draw.text((x, y), " ".join(text), "black", font(True))
            draw.text((x + width, y), caption, "black", font(), anchor="ra")
        else:
            draw.text((x, y), "\n".join(text), "black", font(True))
            draw.text((x, y + LINE * max(map(len, wrapped))), caption, "black", font())
        page.paste(Image.fromarray(panel), (x, y + head))
    draw.text((MARGIN, page.height - LINE - 2), title, "#555555", font())
    return np.asarray(page)


def font(bold: bool = False) -> Any:
    """The letters of our figures."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", name), 12)


def write(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write a film, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        (write_gif if path.suffix.lower() == ".gif" else write_mp4)(part, frames, fps)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """H.264 at a quality at which letters stay sharp."""
    import imageio

    writer: Any = imageio.get_writer(path, fps=fps, quality=8, macro_block_size=2)
    with writer:
        for frame in frames:
            writer.append_data(frame)


def write_gif(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """One palette for all frames, so that what stands still costs nothing."""
    from PIL import Image

    rest = iter(frames)
    first = list(itertools.islice(rest, LOOKED_AT))
    palette = Image.fromarray(np.concatenate(first)).quantize(PALETTE)
    pictures = (
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in itertools.chain(first, rest)
    )
    duration = round(100 / fps) * 10  # GIF counts hundredths of a second
    next(pictures).save(
        path, save_all=True, append_images=pictures, duration=duration, loop=0, optimize=False
    )


def table(labels: Sequence[str], returns: np.ndarray) -> str:
    """A table of the agents in a film and their returns."""
    width = max(map(len, labels))
    return "\n".join(f"{text:{width}s}  {value:9.2f}" for text, value in zip(labels, returns, strict=True))
