"""README's Python runs as it stands there, and its actors reach what their runs are shipped for."""

import os
import re
import subprocess
import sys

import pytest

from tests.helpers.launch import ROOT


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_trained_policies_are_used_as_readme_shows():
    (code,) = re.findall(r"<!-- use -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    returns = {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", done.stdout, re.M)}
    assert returns.keys() == {"RL²", "r-MDP", "PerSim", "CAML"}
    assert returns["RL²"] > 140 and returns["r-MDP"] > 28 and returns["PerSim"] > 190, returns
    assert returns["CAML"] > -100, returns
