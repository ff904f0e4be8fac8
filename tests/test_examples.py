"""The shipped models are as good as docs/rl2.md says, on tasks that the figures there were not made with."""

from pathlib import Path

import pytest

from mpi_utils import checkpoint
from mpi_utils.comm import Comm
from rl2.evaluation import Settings, evaluate

EXAMPLES = Path(__file__).parent.parent / "checkpoints" / "examples"
# What each was trained to reach; three standard errors are allowed for the draw of tasks.
REQUIRED = {"bandit_n10_k5": 6.6, "bandit_n100_k5": 77.5, "mdp_n10": 157.3, "mdp_n10_warm": 157.3}


@pytest.mark.parametrize("name", REQUIRED)
def test_an_example_reaches_its_figure(name):
    path, skipped = checkpoint.newest_valid(EXAMPLES / name)
    assert not skipped
    _, state = checkpoint.load(path)
    settings = Settings(instances=1000, seed=11, opponents="none")
    rows = evaluate(checkpoint.read_config(EXAMPLES / name), state, settings, Comm())
    total = next(row for row in rows if row["metric"] == "return")
    assert total["mean"] > REQUIRED[name] - 3 * total["se"]


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.iterdir()} == set(REQUIRED)
