"""Files of a user's own that are called as modules of this project, beside the command."""

import os
import subprocess
import sys

import pytest

from envs import EnvError, load_factory
from tests.helpers.launch import ROOT


@pytest.mark.slow  # starts eight programs
@pytest.mark.parametrize("name", ["envs.py", "common.py", "caml/__init__.py", "comparison/__init__.py"])
@pytest.mark.parametrize("module", ["train", "evaluate"])
def test_ours_are_used_whatever_lies_beside_the_command(name, module, tmp_path):
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("raise SystemExit('theirs')\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", module, "nothing_of_this_name"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "theirs" not in done.stderr and "Traceback" not in done.stderr
    assert "nothing_of_this_name" in done.stderr


@pytest.mark.slow
def test_the_path_is_ours_beside_a_train_py_of_theirs(tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit('theirs')\n")
    words = [sys.executable, str(ROOT / "train.py"), "nothing_of_this_name"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "unknown system 'nothing_of_this_name'" in done.stderr


def test_a_factory_in_a_module_called_as_ours_is_told_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "envs.py").write_text("def family(): pass\n")
    with pytest.raises(EnvError, match=r"envs:family: envs.py here has the name of a module .* rename it"):
        load_factory("envs:family")
    assert callable(load_factory("persim.problem:family_of"))  # nothing of that name lies here
    (tmp_path / "envs.py").unlink()
    assert callable(load_factory("envs.examples:point_family"))
