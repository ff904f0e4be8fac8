"""Pictures of MuJoCo's robots, drawn by its own renderer without a display."""

import copy
import importlib
import os
from ctypes.util import find_library
from typing import Any

import mujoco
import numpy as np

from envs.parameters import EnvError
from envs.robots import ROBOTS, load_robot

BACKENDS = {"egl": "EGL", "osmesa": "OSMesa"}  # of MuJoCo, and the system's library of each
PLANAR = ("half_cheetah", "half_cheetah_body", "half_cheetah_vel", "half_cheetah_dir")
UPRIGHT = ("hopper", "walker2d", "walker_params")
SPATIAL = ("ant", "ant_dir", "ant_forward_backward", "ant_goal")
DRAWN_ROBOTS = (*PLANAR, *UPRIGHT, *SPATIAL)
CAMERAS = {  # width, height; distance in m, degrees above the ground, height in m that it looks at
    PLANAR: ((400, 100), 2.4, -8, 0.35),
    UPRIGHT: ((200, 260), 3.4, -8, 0.9),
    SPATIAL: ((240, 200), 7.0, -50, 0.3),
}
STRIDE = 0.5  # seconds over which a speed is the mean, about those of a stride


class Robots:
    """The N robots of an environment; each camera goes with its robot."""

    def __init__(self, env: Any, name: str):
        self.env, self.spatial = env, name in SPATIAL
        self.size, distance, elevation, self.height = next(c for r, c in CAMERAS.items() if name in r)
        own = getattr(env, "copies", None)  # HalfCheetah's `Dynamics` have states alone
        robot = load_robot(own.robot if own else ROBOTS["half_cheetah"])
        self.steps_per_second, self.dt = 1 / robot.dt, robot.dt
        model = on_white(robot.model)
        self.data, self.renderer = mujoco.MjData(model), renderer(model, *self.size)
        for flag, shown in (("REFLECTION", False), ("HAZE", False), ("SHADOW", self.spatial)):
            self.renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = shown
        self.camera = mujoco.MjvCamera()
        self.camera.distance, self.camera.azimuth, self.camera.elevation = distance, 90, elevation
        self.walked, self.before = np.zeros(env.num_envs), list[np.ndarray]()

    def positions(self) -> np.ndarray:
        """All positions `[N, nq]` now."""
        if hasattr(self.env, "copies"):
            return np.array(self.env.copies.position)
        return np.concatenate([self.walked[:, None], self.env.state[:, 1:9]], axis=1)

    def note(self) -> None:
        """Note the positions."""
        if not hasattr(self.env, "copies"):  # the distance is no part of the state
            begun = np.broadcast_to(self.env.elapsed == 0, self.env.num_envs)
            self.walked = np.where(begun, 0.0, self.walked + self.dt * self.env.state[:, 0])
        self.before = [*self.before[-round(STRIDE / self.dt) :], self.positions()]

    def frames(self) -> list[np.ndarray]:
        """The environments as they are now."""
        drawn = []
        for position in self.before[-1]:
            self.data.qpos[:] = position
            mujoco.mj_forward(self.renderer.model, self.data)
            # Planar robots have no y: their second position is a height.
            y = position[1] if self.spatial else 0.0
            self.camera.lookat[:] = position[0], y, self.height
            self.renderer.update_scene(self.data, self.camera)
            drawn.append(self.renderer.render().copy())
        return drawn

    def captions(self) -> list[str]:
        """Speeds along x over the last half second, and places."""
        first, last = self.before[0][:, 0], self.before[-1][:, 0]
        speeds = (last - first) / (self.dt * max(1, len(self.before) - 1))
        return [f"{speed:5.2f} m/s, at {place:5.1f} m" for speed, place in zip(speeds, last, strict=True)]


def on_white(model: Any) -> Any:
    """A copy of a robot's model on a white floor without an end, which has a line across each metre."""
    model = copy.copy(model)
    model.tex_data[:] = 255 - (255 - model.tex_data.astype(int)) // 4  # a pale sky
    [floor] = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
    material = model.geom_matid[floor]
    texture = model.mat_texid[material].max()
    height, width = model.tex_height[texture], model.tex_width[texture]
    begin = model.tex_adr[texture]
    lines = model.tex_data[begin : begin + height * width * 3].reshape(height, width, 3)
    lines[:], lines[:, : width // 12] = 245, 150
    model.mat_specular[material] = 0
    model.geom_rgba[floor] = model.mat_rgba[material] = 1
    model.geom_size[floor, :2] = 0  # MuJoCo's sign for a plane without an end
    model.mat_texuniform[material], model.mat_texrepeat[material] = True, 2  # in two metres
    model.vis.quality.shadowsize = 1024
    return model


def renderer(model: Any, width: int, height: int) -> Any:
    """MuJoCo's renderer, by EGL or OSMesa unless MUJOCO_GL says otherwise; raises `EnvError`."""
    from mujoco.rendering.classic import gl_context

    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if not wanted:
        found = [name for name, library in BACKENDS.items() if find_library(library)]
        if not found:
            raise EnvError(
                "a film of robots is drawn by EGL or OSMesa, and neither is here; install one of them "
                "(Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri)"
            )
        wanted = found[0]
    try:
        if wanted in BACKENDS:
            # MuJoCo chooses when it is imported, which fails for all of it where its choice is not there.
            gl_context.GLContext = importlib.import_module(f"mujoco.{wanted}").GLContext
        return mujoco.Renderer(model, height, width)
    except Exception as error:  # whatever a driver raises, the same is to be done
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise EnvError(
            f"a film of robots: {wanted} does not draw ({reason}); give MUJOCO_GL=egl or osmesa"
        ) from None
