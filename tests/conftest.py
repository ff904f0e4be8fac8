"""One table of what the tests of promises measured, at the end of a run; `-m nightly` runs all of them.

A test notes its figures through the fixture `promise`; of the tests in `promises.COUNTED` each case is a
trial. A promise test that is skipped or fails has a row too: nothing is left out in silence.
"""

from pathlib import Path

import pytest

from tests.promises import COUNTED

MEASURED: dict[str, list] = {}  # promise: trials, failures, worst seconds, skipped
BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->\n"


def pytest_addoption(parser):
    parser.addoption(
        "--promises", metavar="FILE", help="write the table to FILE, between its two comments if it has them"
    )


def note(name: str, trials: int, failures: int, worst_s: float | None = None, skipped: int = 0) -> None:
    row = MEASURED.setdefault(name, [0, 0, None, 0])
    for column, more in ((0, trials), (1, failures), (3, skipped)):
        row[column] += more
    if worst_s is not None:
        row[2] = max(worst_s, row[2] or 0.0)


@pytest.fixture(name="promise")
def promise():
    """Note `promise(name, trials, failures, worst seconds or None)`; notes of one name are added up."""
    return note


def counted_as(item) -> str | None:
    """The promise of which a test's cases are trials."""
    return next((name for name, tests in COUNTED.items() if item.nodeid.split("[")[0] in tests), None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    if config.option.markexpr == "nightly":
        for item in items:
            if "promise" in item.fixturenames or counted_as(item):
                item.add_marker(pytest.mark.nightly)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    name = counted_as(item)
    if report.when == "call" and name and not report.skipped:
        note(name, 1, int(report.failed))
    elif name or "promise" in item.fixturenames:
        if report.skipped:
            note(name or item.nodeid.partition("::")[2], 0, 0, skipped=1)
        elif report.failed:
            note(f"{item.nodeid} FAILED", 1, 1)
    return report


def table() -> list[str]:
    lines = [
        "| promise | trials | failures | skipped | worst time (s) |",
        "|---|---|---|---|---|",
    ]
    for name, (trials, failures, worst, skipped) in sorted(MEASURED.items()):
        time = "" if worst is None else f"{worst:.2f}"
        lines.append(f"| {name} | {trials} | {failures} | {skipped or ''} | {time} |")
    return lines


def pytest_terminal_summary(terminalreporter, config):
    if not MEASURED:
        return
    terminalreporter.write_line("")
    for line in table():
        terminalreporter.write_line(line)
    if path := config.getoption("--promises"):
        write(Path(path), "\n".join(table()) + "\n")


def write(path: Path, lines: str) -> None:
    """Put the table between the two comments of a page, or make it the whole file."""
    text = path.read_text() if path.exists() else ""
    if BEGIN in text and END in text:
        before, rest = text.split(BEGIN)
        lines = f"{before}{BEGIN}\n{lines}\n{END}{rest.split(END)[1]}"
    path.write_text(lines)
