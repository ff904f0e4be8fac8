"""The tutorials and the pages on data of one's own, followed to the letter."""

import pytest

from tests.comparison.pages import agreeing, run, steps, words, write_files
from tests.helpers.launch import ROOT

LONG = ("your_population.md", "tutorials.md", "from_logs_to_a_decision.md")
SHORT = ("device_export.md",)
PAGES = [
    *(pytest.param(name, marks=pytest.mark.nightly) for name in LONG),
    *(pytest.param(name, marks=pytest.mark.slow) for name in SHORT),
]


def test_steps_of_a_page():
    text = "a\n```bash\nls\n```\n\n```\nx 1.0\n```\n```bash\npwd\n```\nthen\n```\ny\n```\n"
    assert steps(text) == [("ls\n", "x 1.0\n"), ("pwd\n", None)]
    assert words("b 1\n\na 2.50 ± 3") == ["", "a", "b"]
    assert agreeing("1.00 2,000 3", "1.01 2,100 9") == pytest.approx(2 / 3)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_its_commands_print(page, tmp_path):
    text = (ROOT / "docs" / page).read_text()
    write_files(text, tmp_path)
    found = steps(text)
    assert found
    for command, shown in found:
        printed = run(command, tmp_path)
        if shown is not None:
            assert words(shown) == words(printed), f"{command}\n{printed}"
            assert agreeing(shown, printed) > 0.8, f"{command}\n{printed}"
