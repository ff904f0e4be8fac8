"""Films: who is in them, when a picture stands still, and what the files hold."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from common import film
from common.errors import UserError


class Count:
    """Three environments of rewards 1; row i's episodes last `2 + i` steps."""

    num_envs = 3

    def reset(self):
        self.elapsed = np.zeros(3, int)
        return np.zeros((3, 1)), {}

    def step(self, action):
        self.elapsed += 1
        done = self.elapsed == np.array([2, 3, 4])
        self.elapsed[done] = 0
        return np.zeros((3, 1)), np.ones(3), done, np.zeros(3, bool), {}


class Shades:
    """Each picture is as grey as its environment's clock."""

    steps_per_second, size = 10.0, (40, 30)

    def __init__(self, env):
        self.env = env

    def note(self):
        pass

    def frames(self):
        return [np.full((30, 40, 3), 20 * clock, np.uint8) for clock in self.env.elapsed]

    def captions(self):
        return ["", "", ""]


class Still:
    def reset(self, num):
        pass

    def act(self, observation, reward, done, running):
        return np.zeros(3)


def play(steps, episodes):
    env, returns = Count(), np.zeros(3)
    scene = film.Scene(None, env, Still(), ["a", "b", "c"], steps, episodes)
    observation = env.reset()[0]
    shades = Shades(env)
    frames = list(film.play(scene, observation, shades, 1, 2, returns, "three"))
    at = [film.MARGIN + i * (40 + film.MARGIN) + 20 for i in range(3)]
    row = frames[0].shape[0] - film.LINE - film.MARGIN - 20
    return [[int(frame[row, x, 0]) // 20 for x in at] for frame in frames], returns


def test_a_picture_stands_still_once_its_episode_is_over():
    clocks, returns = play(steps=10, episodes=1)
    # After 2, 3 and 4 steps an episode is over: what it was just before stays, and the end stands twice more.
    assert clocks == [[0, 0, 0], [1, 1, 1], [1, 2, 2], [1, 2, 3], *[[1, 2, 3]] * 3]
    assert returns.tolist() == [2, 3, 4]


def test_meta_episodes_go_on_over_the_ends_of_episodes():
    clocks, returns = play(steps=5, episodes=0)
    assert clocks[:6] == [[0, 0, 0], [1, 1, 1], [0, 2, 2], [1, 0, 3], [0, 1, 0], [1, 2, 1]]
    assert returns.tolist() == [5, 5, 5]
    clocks, returns = play(steps=10, episodes=2)
    assert returns.tolist() == [4, 6, 8] and clocks[-1] == [1, 2, 3]


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_a_file_holds_the_frames_at_their_pace(ending, tmp_path):
    if ending == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    frames = [np.full((20, 40, 3), shade, np.uint8) for shade in (0, 120, 240)]
    path = tmp_path / "new" / f"out.{ending}"
    film.write(path, iter(frames), 10)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing is left beside it
    if ending == "gif":
        with Image.open(path) as made:
            assert (made.n_frames, made.size, made.info["duration"], made.info["loop"]) == (
                3,
                (40, 20),
                100,
                0,
            )
            return
    import imageio.v3

    found = imageio.v3.imread(path)
    assert found.shape == (3, 20, 40, 3)
    assert np.abs(found.mean(axis=(1, 2, 3)) - [0, 120, 240]).max() < 8


def test_a_film_that_fails_leaves_nothing(tmp_path):
    def frames():
        yield np.zeros((20, 40, 3), np.uint8)
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError):
        film.write(tmp_path / "out.gif", frames(), 10)
    assert not list(tmp_path.iterdir())


def test_agents_are_chosen_by_number():
    assert film.chosen("3, 0", 4, "the run").tolist() == [3, 0]
    with pytest.raises(UserError, match=r"--video_agents 1,4: the run has no agent '4'; give some of 0 to 3"):
        film.chosen("1,4", 4, "the run")
    assert film.spread(2).tolist() == [0, 1] and film.spread(101).tolist() == [0, 25, 50, 75, 100]
    parameters = {"target": np.array([1.23456, 2.0]), "moves": np.zeros((2, 4, 2))}
    assert film.label("agent 7", parameters, 0) == "agent 7, target 1.23"


def test_mp4_asks_for_its_extra(monkeypatch):
    film.check("out.gif")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    film.check("out.gif")
    with pytest.raises(UserError, match=r"MP4 needs the extra `video`"):
        film.check("out.mp4")
