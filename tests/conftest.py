"""One table of what the tests of promises measured, at the end of a run: promise, trials, failures, time."""

from pathlib import Path

import pytest

MEASURED: dict[str, list] = {}


def pytest_addoption(parser):
    parser.addoption("--promises", metavar="FILE", help="also write the table of promises to FILE")


@pytest.fixture
def promise():
    """Note `promise(name, trials, failures, worst seconds or None)`; notes of one name are added up."""

    def note(name: str, trials: int, failures: int, worst_s: float | None = None) -> None:
        row = MEASURED.setdefault(name, [0, 0, None])
        row[0] += trials
        row[1] += failures
        if worst_s is not None:
            row[2] = max(worst_s, row[2] or 0.0)

    return note


def table() -> list[str]:
    lines = ["| promise | trials | failures | worst time (s) |", "|---|---|---|---|"]
    for name, (trials, failures, worst) in sorted(MEASURED.items()):
        lines.append(f"| {name} | {trials} | {failures} | {'' if worst is None else f'{worst:.2f}'} |")
    return lines


def pytest_terminal_summary(terminalreporter, config):
    if MEASURED:
        terminalreporter.write_line("")
        for line in table():
            terminalreporter.write_line(line)
        if path := config.getoption("--promises"):
            Path(path).write_text("\n".join(table()) + "\n")
