"""Pictures of small worlds while agents act in them: grids, particles, CartPole, MountainCar."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw

from envs import grid_navi, mountain_car, resource_gathering
from envs.cart_pole import LARGEST_POSITION
from envs.parameters import EnvError
from envs.protocols import Parameters
from envs.robot_drawing import DRAWN_ROBOTS, Robots
from envs.sparse_point_robot import NEAR

FINER = 3  # drawn so many times larger, then reduced: Pillow draws without smooth edges
GREY, DARK, BLUE, ORANGE, GREEN = "#d9d9d9", "#333333", "#1f77b4", "#ff7f0e", "#2ca02c"
Point = tuple[float, float] | np.ndarray


class Drawing(Protocol):
    """Pictures of the N environments of one vector environment, which has been reset."""

    steps_per_second: float  # in a film that runs at the usual speed
    size: tuple[int, int]  # width and height of a picture

    def note(self) -> None:
        """Note where the agents are now; to be called after the reset and after each step."""
        ...

    def frames(self) -> list[np.ndarray]:
        """The environments as they are now: N pictures `[height, width, 3]` uint8."""
        ...

    def captions(self) -> list[str]:
        """What a number tells better of each of them now; may be empty."""
        ...


def drawing_of(family: Any, env: Any) -> Drawing:
    """The drawing of a family's environments; raises `EnvError` where there is none.

    A user's own environments draw themselves, where they are made with `render_mode="rgb_array"`.
    """
    check_drawn(family)
    name, around = innermost(family, "family").name, [env]
    while getattr(around[-1], "env", None) is not None:
        around.append(around[-1].env)
    if name in DRAWN_ROBOTS:
        return Robots(around[-1], name)
    if name not in WORLDS:
        return Rendered(around[-1])
    parameters = next(one.parameters for one in around if hasattr(one, "parameters"))
    return WORLDS[name](around[-1], parameters)


def check_drawn(family: Any) -> None:
    """Raise `EnvError` if environments of the family cannot be drawn."""
    family = innermost(family, "family")
    if family.name in DRAWN_ROBOTS or family.name in WORLDS or hasattr(family, "tasks"):
        return
    known = ", ".join([*DRAWN_ROBOTS, *WORLDS])
    raise EnvError(f"there are no pictures of {family.name}; there are of {known}")


def innermost(thing: Any, attribute: str) -> Any:
    """What is inside all that wraps it as its `attribute`."""
    while getattr(thing, attribute, None) is not None:
        thing = getattr(thing, attribute)
    return thing


class Canvas:
    """A white picture of `width` x `height` pixels of the world from `low` to `high` (x, y; y goes up)."""

    def __init__(self, width: int, height: int, low: Point, high: Point):
        self.size = width, height
        self.image = Image.new("RGB", (FINER * width, FINER * height), "white")
        self.draw = ImageDraw.Draw(self.image)
        self.low, span = np.asarray(low, float), np.subtract(high, low)
        self.scale = np.array([FINER * width, FINER * height]) / span

    def at(self, points: Any) -> list[tuple[float, float]]:
        """Pixels of points `[n, 2]`."""
        across, up = ((np.atleast_2d(points) - self.low) * self.scale).T
        return list(zip(across.tolist(), (self.image.height - up).tolist(), strict=True))

    def line(self, points: Any, colour: str, width: float = 2) -> None:
        """A line through points `[n, 2]`."""
        if len(points) > 1:
            self.draw.line(self.at(points), fill=colour, width=round(FINER * width), joint="curve")

    def disc(self, centre: Point, pixels: float, colour: str, edge: str | None = None) -> None:
        """A disc of a radius in pixels."""
        [middle] = self.at(centre)
        self.draw.circle(middle, FINER * pixels, fill=colour, outline=edge, width=FINER)

    def box(self, low: Point, high: Point, colour: str, edge: str | None = None) -> None:
        """A rectangle."""
        (left, bottom), (right, top) = self.at([low, high])
        self.draw.rectangle((left, top, right, bottom), fill=colour, outline=edge, width=FINER)

    def array(self) -> np.ndarray:
        """The picture."""
        return np.asarray(self.image.resize(self.size, Image.Resampling.BOX))


class World:
    """Base of drawings on a `Canvas`: a subclass draws agent i."""

    steps_per_second = 20.0
    size = (200, 200)
    low: Point = (0.0, 0.0)
    high: Point = (1.0, 1.0)

    def __init__(self, env: Any, parameters: Parameters):
        self.env, self.parameters = env, parameters
        self.walked: list[list[np.ndarray]] = [[] for _ in range(env.num_envs)]

    def places(self) -> np.ndarray:
        """Where the agents are now `[N, 2]`, of which trails are made."""
        raise NotImplementedError

    def draw(self, canvas: Canvas, i: int) -> None:
        """Draw the world of agent i."""
        raise NotImplementedError

    def note(self) -> None:
        """Go on with the trails, or begin them anew."""
        begun = np.broadcast_to(self.env.elapsed == 0, self.env.num_envs)
        for trail, place, new in zip(self.walked, np.array(self.places(), float), begun, strict=True):
            trail[:] = [place] if new else [*trail, place]

    def frames(self) -> list[np.ndarray]:
        """The environments as they are now."""
        drawn = []
        for i in range(self.env.num_envs):
            canvas = Canvas(*self.size, self.low, self.high)
            self.draw(canvas, i)
            drawn.append(canvas.array())
        return drawn

    def captions(self) -> list[str]:
        """Nothing."""
        return [""] * self.env.num_envs


class CartPoles(World):
    """A cart on its track; the pole is as long as the agent's."""

    steps_per_second, size = 50.0, (240, 150)
    low, high = (-LARGEST_POSITION, -0.6), (LARGEST_POSITION, 2.4)

    def places(self) -> np.ndarray:
        return np.stack([self.env.state[:, 0], 0 * self.env.state[:, 0]], axis=1)

    def draw(self, canvas: Canvas, i: int) -> None:
        position, angle = self.env.state[i, 0], self.env.state[i, 2]
        length = 2 * self.parameters["length"][i]
        canvas.line([(-LARGEST_POSITION, -0.15), (LARGEST_POSITION, -0.15)], GREY)
        canvas.box((position - 0.3, -0.15), (position + 0.3, 0.15), DARK)
        tip = position + length * np.sin(angle), 0.15 + length * np.cos(angle)
        canvas.line([(position, 0.15), tip], ORANGE, 5)
        canvas.disc((position, 0.15), 3, BLUE)

    def captions(self) -> list[str]:
        """The angles of the poles."""
        return [f"{angle:+.1f}°" for angle in np.degrees(self.env.state[:, 2])]


class MountainCars(World):
    """A car in its valley, and the flag to which it is to drive."""

    steps_per_second, size = 30.0, (240, 150)
    low, high = (mountain_car.LEFT_END, -1.2), (mountain_car.RIGHT_END, 1.4)

    def places(self) -> np.ndarray:
        return np.stack([self.env.state[:, 0], np.sin(3 * self.env.state[:, 0])], axis=1)

    def draw(self, canvas: Canvas, i: int) -> None:
        x = np.linspace(mountain_car.LEFT_END, mountain_car.RIGHT_END, 100)
        canvas.line(np.stack([x, np.sin(3 * x)], axis=1), DARK, 2)
        foot = np.array([mountain_car.GOAL, np.sin(3 * mountain_car.GOAL)])
        canvas.line([foot, foot + (0, 0.35)], GREEN, 2)
        canvas.box(foot + (0, 0.22), foot + (0.08, 0.35), GREEN)
        canvas.disc(self.walked[i][-1] + (0, 0.09), 6, ORANGE)


class Particles(World):
    """The way of a particle on the plane, and its target."""

    low, high = (-0.3, -0.3), (1.2, 1.2)

    def places(self) -> np.ndarray:
        return self.env.position

    def draw(self, canvas: Canvas, i: int) -> None:
        canvas.disc(2 * (self.env.physics.target,), 7, "white", GREEN)
        canvas.disc(2 * (self.env.physics.target,), 3, GREEN)
        canvas.disc((0.0, 0.0), 3, GREY)
        canvas.line(self.walked[i], BLUE)
        canvas.disc(self.walked[i][-1], 5, ORANGE)


class Points(World):
    """A point that looks for a goal somewhere on a half circle."""

    low, high = (-1.4, -0.9), (1.4, 1.9)

    def places(self) -> np.ndarray:
        return self.env.point

    def draw(self, canvas: Canvas, i: int) -> None:
        angle = np.linspace(0, np.pi, 60)
        canvas.line(np.stack([np.cos(angle), np.sin(angle)], axis=1), GREY)
        canvas.disc(self.env.goal[i], NEAR * canvas.scale[0] / FINER, "#c7e9c0", GREEN)
        canvas.line(self.walked[i], BLUE)
        canvas.disc(self.walked[i][-1], 5, ORANGE)


class Grid(World):
    """Base of worlds of 5 x 5 cells, whose middles are whole numbers."""

    steps_per_second, cells = 4.0, 5
    low, high = (-0.55, -0.55), (4.55, 4.55)

    def grid(self, canvas: Canvas, i: int) -> None:
        """The lines between cells and the agent with its trail, over what is drawn already."""
        for edge in np.arange(self.cells + 1) - 0.5:
            canvas.line([(edge, -0.5), (edge, self.cells - 0.5)], GREY, 1)
            canvas.line([(-0.5, edge), (self.cells - 0.5, edge)], GREY, 1)
        canvas.line(self.walked[i], BLUE)
        canvas.disc(self.walked[i][-1], 9, ORANGE)

    def cell(self, canvas: Canvas, centre: Any, colour: str) -> None:
        """Fill a cell."""
        canvas.box(np.subtract(centre, 0.5), np.add(centre, 0.5), colour)


class GridNavis(Grid):
    """The goal's cell is green; the policy is not shown it."""

    def places(self) -> np.ndarray:
        return grid_navi.PLACES[self.env.cell]

    def draw(self, canvas: Canvas, i: int) -> None:
        self.cell(canvas, grid_navi.PLACES[self.env.goal[i]], "#a1d99b")
        self.grid(canvas, i)


class Walks(Grid):
    """Home is grey, visited cells are light, and the agent's own cell is green."""

    def places(self) -> np.ndarray:
        row, column = self.env.position.T
        return np.stack([column, self.cells - 1 - row], axis=1)

    def draw(self, canvas: Canvas, i: int) -> None:
        row, column = resource_gathering.HOME
        self.cell(canvas, (column, self.cells - 1 - row), GREY)
        for cell in np.flatnonzero(self.env.visited[i]):
            self.cell(canvas, (cell % self.cells, self.cells - 1 - cell // self.cells), "#deebf7")
        row, column = divmod(self.parameters["cell"][i], self.cells)
        canvas.disc((column, self.cells - 1 - row), 14, GREEN)
        self.grid(canvas, i)


class Rendered:
    """A user's own environments, which draw themselves; raises `EnvError` where they do not."""

    def __init__(self, env: Any):
        if getattr(env, "render_mode", None) != "rgb_array":
            raise EnvError(
                'a film of a user\'s own environment: make it with render_mode="rgb_array" and a render '
                "that returns an array [height, width, 3]"
            )
        self.env, self.steps_per_second = env, float(env.metadata.get("render_fps", 20))
        height, width = self.frames()[0].shape[:2]
        self.size = width, height

    def note(self) -> None:
        """Nothing."""

    def frames(self) -> list[np.ndarray]:
        """The environments as they are now."""
        return [np.asarray(frame, np.uint8) for frame in self.env.render()]

    def captions(self) -> list[str]:
        """Nothing."""
        return [""] * self.env.num_envs


WORLDS: dict[str, Callable[[Any, Parameters], World]] = {
    "cart_pole": CartPoles,
    "mountain_car": MountainCars,
    "particle": Particles,
    "sparse_point_robot": Points,
    "grid_navi": GridNavis,
    "resource_gathering": Walks,
}
