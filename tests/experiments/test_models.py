"""The table of shipped models: its commands make the settings of the models again."""

import dataclasses
import shlex

import pytest

from common.config import from_stored, idle, parse_flags
from common.runs import run_folder
from common.shipped import EXAMPLES, shipped
from experiments.models import PLACES, effort, kept, score, training_command, write
from tests.helpers.launch import ROOT
from train import SYSTEMS

RUNS = sorted(path for path in shipped(EXAMPLES).iterdir() if path.is_dir())


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_training_command_gives_the_settings_of_its_model(run):
    stored = run_folder.read_config(run)
    _, _, _, system, *flags = shlex.split(training_command(stored))
    config_type = SYSTEMS[system].config
    made = SYSTEMS[system].check(parse_flags(config_type, flags, "python -m train"))
    wanted = SYSTEMS[system].check(from_stored(config_type, stored))
    ignored = PLACES | idle(wanted).keys()
    both = [
        {name: value for name, value in dataclasses.asdict(config).items() if name not in ignored}
        for config in (made, wanted)
    ]
    assert both[0] == both[1]


def test_a_score_stands_beside_what_it_is_compared_with():
    rows = [
        {"method": "", "metric": "return", "agent": "0", "mean": 190.0, "se": 1.0},
        {"method": "", "metric": "return", "agent": "1", "mean": 200.0, "se": 1.0},
        {"method": "true_model", "metric": "return", "agent": "0", "mean": 198.0, "se": 1.0},
        {"method": "true_model", "metric": "return", "agent": "1", "mean": 200.0, "se": 1.0},
    ]
    assert score("x", "persim", rows) == ("return 195", "planned on the true dynamics 199")
    rows = [{"method": "rl2", "metric": "return", "mean": 158.5, "se": 0.79}]
    assert score("mdp_n10", "rl2", rows) == ("return 158.5 ± 0.79", "paper 156.2")


def test_lines_are_read_back_as_they_were_written(tmp_path):
    lines = {
        name: [f"`{name}`", "bandit", "1.0", "2.0", "return 3", "–", "`python -m train`"] for name in "ab"
    }
    write(tmp_path / "table.md", list(lines.values()))
    assert kept(tmp_path / "table.md") == lines and kept(tmp_path / "none.md") == {}


def test_the_table_that_is_shown_has_every_shipped_model_as_it_is():
    page = (ROOT / "results/models.md").read_text()
    for run in RUNS:
        command = training_command(run_folder.read_config(run))
        [line] = [line for line in page.splitlines() if line.startswith(f"| `{run.name}` |")]
        assert " | ".join(effort(run)) in line and f"`{command}`" in line, run.name
