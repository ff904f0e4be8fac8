"""Exported policies: they act as the run's own without this project, and their cards tell the truth."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.runs import files
from mpi_utils.comm import Comm
from rmdp import evaluation
from rmdp.config import Config, check_config
from rmdp.learner import Learner
from rmdp.problem import make_problem

STRANGER = """
import sys, torch
for path in sys.argv[2:]:
    policy = torch.jit.load(path)
    observation = torch.load(sys.argv[1], weights_only=True)
    torch.save([policy(observation), policy(observation[:1]), policy(observation[:0])], path + ".actions")
assert not {"rmdp", "common", "envs"} & sys.modules.keys()
"""


def evaluated(environment, network, folder, **settings):
    """A learner with policies that differ, and the rows of its evaluation with --export."""
    sizes = {"num_policies": 3, "steps_per_policy": 32, "envs_per_policy": 4, "num_minibatches": 4}
    sizes["warm_start_iters"] = 0
    sizes |= {"num_agents": 10, "policy_network": network, **settings}
    config = check_config(dataclasses.replace(Config.defaults({"environment": environment}), **sizes))
    made = Learner(config, Comm(), make_problem(config, Comm()))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        made.policies.head.weight *= 50
        made.policies.head.bias += torch.randn(made.policies.head.bias.shape, generator=generator)
        size = made.problem.family.observation_space.shape[0]
        seen = 3 * torch.randn(3, 100, size, generator=generator) + 1
        made.policies.normaliser.update(seen)
    flags = evaluation.parse_settings(["--episodes", "2", "--export", str(folder)], show=False)
    stored = dataclasses.asdict(made.config) | {"iteration": 7}
    rows = evaluation.evaluate(stored, made.state_dict(), flags, Comm())
    return made, seen, rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "network"), [("hopper", "shared"), ("resource_gathering", "separate")]
)
def test_a_stranger_with_torch_alone_gets_the_same_actions(environment, network, tmp_path):
    folder = tmp_path / "policies"
    made, seen, _ = evaluated(environment, network, folder)
    observation = 4 * seen[0]  # some of it beyond the normaliser's clip
    torch.save(observation, tmp_path / "observation.pt")
    paths = [str(folder / f"policy_{j}.pt") for j in range(3)]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-I", "-c", STRANGER, str(tmp_path / "observation.pt"), *paths]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    with torch.no_grad():
        expected = made.policies.most_likely(observation.expand(3, -1, -1))
        if not made.policies.discrete:
            expected = expected.clamp(-1, 1)  # the bounds of its motors
    assert len(torch.unique(expected, dim=0)) == 3
    for j, path in enumerate(paths):
        whole, one, none = torch.load(f"{path}.actions", weights_only=True)
        assert whole.dtype == expected.dtype and whole.shape == expected[j].shape
        assert torch.allclose(whole, expected[j], atol=1e-6, rtol=1e-6)
        assert torch.allclose(one, expected[j, :1], atol=1e-6, rtol=1e-6) and len(none) == 0


def test_cards_and_index_tell_the_truth(tmp_path):
    folder = tmp_path / "new" / "policies"
    made, _, rows = evaluated("hopper", "shared", folder)
    index = json.loads((folder / "index.json").read_text())
    assert index["policy_of_agent"] == made.population.assignment.everyone().tolist()
    returns = [row for row in rows if row["metric"] == "policy_return"]
    names = {"index.json"}
    for entry, row in zip(index["files"], returns, strict=True):
        data, card = (folder / entry["file"]).read_bytes(), (folder / entry["card"]).read_text()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"] and entry["sha256"] in card
        assert hashlib.sha256(card.encode()).hexdigest() == entry["card_sha256"]
        assert entry["agents"] == row["agents"] and entry["return"] == row["mean"]
        members = np.flatnonzero(made.population.assignment.everyone() == row["policy"])
        targets = ", ".join(f"{made.problem.agents['target'][i]:.4g} (agent {i})" for i in members)
        for text in (f"agents: {len(members)} of 10", f"target: {targets}", f"{row['mean']:.2f}", "hopper"):
            assert text in card
        for text in (f"with {row['worst']:.2f}", "2 fresh episodes", "float32 [B, 11]", "float32 [B, 3]"):
            assert text in card
        for text in (
            "iterations: 7",
            "environment steps: 224 of this policy, 672 of all",
            "seed: 0",
            f"torch {torch.__version__}",
        ):
            assert text in card
        names |= {entry["file"], entry["card"]}
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in folder.parent.iterdir()] == ["policies"]


def test_a_folder_with_anything_in_it_is_refused_and_left_alone(tmp_path):
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder") as error:
        evaluated("resource_gathering", "shared", folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["policies", "mine.txt"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    written, write_file = [], files.write_file

    def fail_late(path, data):
        if len(written) == 3:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        write_file(path, data)

    monkeypatch.setattr(files, "write_file", fail_late)
    with pytest.raises(UserError, match="No space left") as error:
        evaluated("resource_gathering", "shared", tmp_path / "policies")
    assert "\n" not in str(error.value) and len(written) == 3
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    (tmp_path / "policies").mkdir()  # an empty one is as good as none
    evaluated("resource_gathering", "shared", tmp_path / "policies")
    assert len(list((tmp_path / "policies").iterdir())) == 7


def test_agents_with_dynamics_of_their_own(tmp_path):
    """Their cards tell their dynamics where these are numbers, and the steps of training and surveys."""
    folder = tmp_path / "policies"
    made, _, rows = evaluated("cart_pole", "shared", folder, algorithm="random")
    members = made.population.assignment.everyone()
    for row in (row for row in rows if row["metric"] == "policy_return"):
        j, card = row["policy"], (folder / f"policy_{row['policy']}.md").read_text()
        for name, values in made.problem.agents.items():
            each = ", ".join(f"{values[i]:.4g} (agent {i})" for i in np.flatnonzero(members == j))
            assert f"- {name}: {each}" in card
        assert f"agents: {row['agents']} of 10" in card and f"{row['mean']:.2f}" in card
        assert "is possible" not in card and "224 of this policy, 0 of all" in card  # it has not trained


def test_preferences_that_are_arrays_are_told_by_their_shape(tmp_path):
    made, _, _ = evaluated("particle", "separate", tmp_path / "policies", algorithm="random")
    shape = made.problem.agents["moves"].shape[1:]
    assert (
        f"- moves: of each agent an array of shape {shape}"
        in (tmp_path / "policies" / "policy_0.md").read_text()
    )
