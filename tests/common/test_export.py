"""What is refused before work, and that a file keeps to the environment's units."""

import io
import json

import numpy as np
import onnxruntime
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from common import export
from common.errors import UserError
from common.export import Network, Port
from common.rollout import to_space
from tests.helpers.launch import command


class Scaled(nn.Module):
    """A network whose actions go beyond the space's bounds."""

    def __init__(self, space):
        super().__init__()
        self.to_space = export.ToSpace(space)

    def forward(self, x):
        """Actions `[B, 2]`."""
        return self.to_space(300 * torch.sin(x))


def network(space, **fields):
    wide = Port(torch.zeros(2, 2), "a number")
    return Network(
        "one", "One", Scaled(space), {"observation": wide}, {"action": export.action_port(space)},
        [("Purpose", "a test"), ("Training", "none")], **fields,
    )  # fmt: skip


def test_actions_are_in_the_units_of_the_environment():
    space = Box(np.float32([30, -5]), np.float32([1017, 5]))
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    expected = to_space(300 * np.sin(x), space)
    assert (expected[:, 0] == 30).any() and (expected[:, 0] > 30).any()
    made = network(space)
    script = torch.jit.load(io.BytesIO(export.torchscript(made)))
    np.testing.assert_allclose(script(torch.from_numpy(x)).numpy(), expected, rtol=1e-5)
    session = onnxruntime.InferenceSession(export.onnx_model(made))
    np.testing.assert_allclose(session.run(None, {"observation": x})[0], expected, rtol=1e-5)
    assert "from (30, -5) to (1017, 5)" in made.outputs["action"].meaning


def test_discrete_actions_stay_as_they_are():
    action = torch.tensor([0, 2, 1])
    assert export.ToSpace(Discrete(3))(action) is action


def test_one_hot_of_nothing_is_zero():
    found = export.one_hot(torch.tensor([1, -1]), 3)
    assert found.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_without_onnx_there_is_torchscript_alone(tmp_path):
    made = network(Discrete(2), entry={"policy": 4})
    export.export(str(tmp_path / "out"), [made], {"system": "test"})
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"one.pt", "one.md", "index.json"}
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    (entry,) = index["files"]
    assert index["system"] == "test" and entry["policy"] == 4 and "onnx" not in entry
    assert entry["inputs"] == {"observation": {"dtype": "float32", "shape": ["B", 2]}}
    card = (tmp_path / "out" / "one.md").read_text()
    heads = [line for line in card.splitlines() if line.startswith("#")]
    assert heads == ["# One", "## Purpose", "## Input and output", "## Training", "## Files"]


def test_what_is_missing_is_told_before_work(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="give --export FOLDER"):
        export.check("", onnx=True)
    export.check(str(tmp_path / "new"), onnx=True)
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '.\[onnx\]'") as error:
        export.check(str(tmp_path / "new"), onnx=True)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("runs", [1, 2])
def test_the_command_refuses_before_work(tmp_path, runs):
    (tmp_path / "mine.txt").write_text("mine")
    paths = ["checkpoints/examples/mdp_n10"] * runs
    done = command(1, "evaluate", *paths, "--export", tmp_path)
    assert done.code == 2 and ("not an empty folder", "give one run")[runs - 1] in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"] and "return" not in done.output
