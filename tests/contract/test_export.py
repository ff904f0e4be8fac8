"""Exported files of all systems do what the run's own actor does, in TorchScript and in ONNX."""

import hashlib
import json

import numpy as np
import onnxruntime
import pytest
import torch

from common.runs import checkpoint
from evaluate import EVALUATIONS
from mpi_utils.comm import Comm
from persim.simulator import Simulator
from tests.contract.test_actor import history, replay  # noqa: F401

FLAGS = {
    "rl2": ["--instances", "3", "--baselines", "none"],
    "rmdp": ["--episodes", "2"],
    "persim": ["--trajectories", "2", "--episodes", "0", "--unseen", "0"],
    "caml": ["--baselines", "none", "--repeats", "1", "--updates", "1", "--study", "False"],
}
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """What `evaluate --export --onnx True` writes of the run."""
    path = tmp_path_factory.mktemp("export") / "new" / "files"
    evaluation = EVALUATIONS[run.case.system]
    flags = ["--export", str(path), "--onnx", "True", *FLAGS[run.case.system]]
    if ":" in run.problem.environment:
        flags += ["--environment", run.problem.environment]
    stored, state = checkpoint.open_run(run.folder, run.case.system)
    evaluation.evaluate(stored, state, evaluation.parse_settings(flags, show=False), Comm())
    return path


def functions(folder, entry):
    """A file's network from arrays to a tuple of arrays: by TorchScript, and by ONNX."""
    script = torch.jit.load(folder / entry["file"])
    session = onnxruntime.InferenceSession(folder / entry["onnx"])

    def in_torch(*inputs):
        with torch.no_grad():
            found = script(*map(torch.from_numpy, inputs))
        return tuple(part.numpy() for part in (found if isinstance(found, tuple) else (found,)))

    def in_onnx(*inputs):
        return session.run(None, dict(zip(entry["inputs"], inputs, strict=True)))

    return in_torch, in_onnx


def act_recurrently(step, entry, history):  # noqa: F811
    """Actions `[T, N, ...]` of a recurrent step that is given back what it remembers."""
    num, inputs = len(history[0][0]), entry["inputs"]
    shapes = {name: [num if size == "B" else size for size in port["shape"]] for name, port in inputs.items()}
    state = [
        np.full(shapes[name], -1 if port["dtype"] == "int64" else 0, port["dtype"])
        for name, port in list(inputs.items())[3:]
    ]
    actions = []
    for observation, reward, done in history:
        reward = np.zeros(num, np.float32) if reward is None else np.float32(reward)
        done = np.ones(num, np.float32) if done is None else np.float32(done)
        action, *state = step(observation.astype(inputs["observation"]["dtype"]), reward, done, *state)
        actions.append(action)
    return np.array(actions)


def test_files_act_as_the_actor(run, folder, history):  # noqa: F811
    index = json.loads((folder / "index.json").read_text())
    assert index["system"] == run.case.system
    if run.case.system == "persim":
        pytest.skip("plans: see below")
    if run.case.system == "caml":  # its files are the medoids as they are
        expected = replay(run.case.load(run.folder, **run.case.loading), history)
        owners = np.zeros(len(history[0][0]), int)
    else:
        expected = replay(run.actor(), history)
        owners = np.array(index.get("policy_of_agent", [0] * len(history[0][0])))
    for form in (0, 1):
        steps = [functions(folder, entry)[form] for entry in index["files"]]
        if run.case.system == "rl2":
            found = act_recurrently(steps[0], index["files"][0], history)
        else:
            seen = [np.asarray(observation, np.float32) for observation, *_ in history]
            each = np.array([[step(observation)[0] for step in steps] for observation in seen])
            found = np.array([actions[owners, np.arange(len(owners))] for actions in each])
        np.testing.assert_allclose(found, expected, **TOLERANCE)
        assert found.dtype == expected.dtype


def test_a_simulator_predicts_as_the_planner_sees_it(run, folder):
    if run.case.system != "persim":
        pytest.skip("acts without a simulator")
    index = json.loads((folder / "index.json").read_text())
    stored, state = checkpoint.open_run(run.folder, "persim")
    simulator = Simulator(**state["sizes"])
    simulator.load_state_dict(state["simulator"])
    rng, agents = np.random.default_rng(0), np.array([4, 0, 5, 4, 1])
    states = rng.normal(size=(5, simulator.state_size)).astype(np.float32)
    actions = rng.integers(simulator.num_actions, size=5)
    given = torch.from_numpy(states)[None, :, None], torch.from_numpy(actions)[:, None]
    expected = simulator.at(agents).step(*given)[:, :, 0].numpy()
    assert len(index["agents"]) == 6 and "planner" in index["not_exported"]
    for step in functions(folder, index["files"][0]):
        (found,) = step(agents, states, actions)
        np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_index_and_cards_name_what_is_there(run, folder):
    index = json.loads((folder / "index.json").read_text())
    names = {"index.json"}
    for entry in index["files"]:
        card = (folder / entry["card"]).read_text()
        for file, digest in (("file", "sha256"), ("onnx", "onnx_sha256"), ("card", "card_sha256")):
            assert hashlib.sha256((folder / entry[file]).read_bytes()).hexdigest() == entry[digest]
            assert file == "card" or entry[digest] in card
            names.add(entry[file])
        assert all(f"- {name}: " in card for name in (*entry["inputs"], *entry["outputs"]))
        assert run.problem.environment in card and "iterations: not recorded" in card
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in folder.parent.iterdir()] == ["files"]


def test_starts_say_that_they_are_and_can_be_trained_on(run, folder):
    if run.case.system != "caml":
        pytest.skip("its files are finished")
    assert "A start, not a finished policy" in (folder / "start_0.md").read_text()
    script = torch.jit.load(folder / "start_0.pt")
    action, *drawn_from = script(torch.randn(3, len(run.env(1).reset()[0][0])))
    if len(drawn_from) == 1:
        torch.log_softmax(drawn_from[0], -1)[:, 0].sum().backward()
    else:
        mean, log_std = drawn_from
        torch.distributions.Normal(mean, log_std.exp()).log_prob(action.detach() + 0.1).sum().backward()
    assert len(list(script.parameters())) == (4 if len(drawn_from) == 1 else 5)
    assert all(parameter.grad is not None for parameter in script.parameters())
