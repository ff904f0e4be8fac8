"""Counts what tests of promises see: trials, failures and the worst time of each promise.

A trial is a block, `with promise("B4 flipped bits"):`, which passes or fails, or a case of a test with
`@pytest.mark.promise("C1 resumed bit for bit")`. A test that fails outside of its trials, or is skipped, has
a row too: nothing is left out in silence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->\n"


@dataclass
class Row:
    """A promise's line of the table."""

    trials: int = 0
    failures: int = 0
    skipped: int = 0
    worst_s: float | None = None


@dataclass
class Trial:
    """What a block may tell of itself: how long it took, and how many of several trials failed."""

    seconds: float | None = None
    failures: int = 0


class Table:
    """Rows by promise; trials of one name are added up."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def note(self, name: str, trials: int = 0, failures: int = 0, skipped: int = 0) -> Row:
        """Add to a promise's row."""
        row = self.rows.setdefault(name, Row())
        row.trials += trials
        row.failures += failures
        row.skipped += skipped
        return row

    def lines(self) -> list[str]:
        """The table in Markdown."""
        lines = ["| promise | trials | failures | skipped | worst time (s) |", "|---|---|---|---|---|"]
        for name, row in sorted(self.rows.items()):
            time = "" if row.worst_s is None else f"{row.worst_s:.2f}"
            lines.append(f"| {name} | {row.trials} | {row.failures} | {row.skipped or ''} | {time} |")
        return lines

    def write(self, path: Path) -> None:
        """Put the table between the two comments of a page, or make it the whole file."""
        text, lines = path.read_text() if path.exists() else "", "\n".join(self.lines()) + "\n"
        if BEGIN in text and END in text:
            before, rest = text.split(BEGIN)
            lines = f"{before}{BEGIN}\n{lines}\n{END}{rest.split(END)[1]}"
        path.write_text(lines)


class Promise:
    """The fixture: `with promise(name) as trial:` is a trial, `promise(name, 10)` ten that pass together.

    A block that raises counts as failed with all its trials, unless `trial.failures` says how many.
    """

    def __init__(self, table: Table) -> None:
        self.table, self.failed = table, False

    @contextmanager
    def __call__(self, name: str, trials: int = 1) -> Iterator[Trial]:
        """Count a block as trials of the promise `name`."""
        trial = Trial()
        try:
            yield trial
        except (Exception, pytest.fail.Exception):
            self.failed = True
            self._note(name, trials, trial, trial.failures or trials)
            raise
        self._note(name, trials, trial, trial.failures)

    def _note(self, name: str, trials: int, trial: Trial, failures: int) -> None:
        row = self.table.note(name, trials, failures)
        if trial.seconds is not None:
            row.worst_s = max(trial.seconds, row.worst_s or 0.0)
