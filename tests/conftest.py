"""Markers, one thread for all numbers, and the table of promises at the end of a run."""

import os
from pathlib import Path

import pytest

# Tests are tiny: more threads make them slower, and wait for each other where cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.helpers.launch import Job, find_mpirun  # noqa: E402
from tests.helpers.promises import Promise, Table  # noqa: E402

TABLE = Table()


def pytest_addoption(parser):
    parser.addoption(
        "--promises", metavar="FILE", help="write the table to FILE, between its two comments if it has them"
    )


@pytest.fixture
def promise(request):
    """Counts trials of promises: `with promise("B4 flipped bits"): ...`."""
    request.node.promise = Promise(TABLE)
    return request.node.promise


def promised(item) -> str | None:
    """The promise of which a test's cases are trials."""
    marker = item.get_closest_marker("promise")
    return marker.args[0] if marker else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Nightly tests run only if `-m` names them; `-m nightly` runs the short tests of promises too."""
    no_mpirun = pytest.mark.skip(reason="no mpirun: pip install mpich") if find_mpirun() is None else None
    for item in items:
        if config.option.markexpr == "nightly" and ("promise" in item.fixturenames or promised(item)):
            item.add_marker(pytest.mark.nightly)
        if no_mpirun and item.get_closest_marker("mpi"):
            item.add_marker(no_mpirun)
    if "nightly" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("nightly")])
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """A test that starts mpirun has to say so."""
    Job.allowed = bool(item.get_closest_marker("mpi"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    name, fixture = promised(item), getattr(item, "promise", None)
    if name and report.when == "call" and not report.skipped:
        TABLE.note(name, 1, int(report.failed))
    elif name or "promise" in item.fixturenames:
        if report.skipped:
            TABLE.note(name or item.nodeid.partition("::")[2], skipped=1)
        elif report.failed and not (fixture and fixture.failed and report.when == "call"):
            TABLE.note(f"{item.nodeid} FAILED", 1, 1)
    return report


def pytest_terminal_summary(terminalreporter, config):
    if not TABLE.rows:
        return
    terminalreporter.write_line("")
    for line in TABLE.lines():
        terminalreporter.write_line(line)
    if path := config.getoption("--promises"):
        TABLE.write(Path(path))
