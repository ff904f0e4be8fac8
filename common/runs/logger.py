"""The numbers of a run: metrics.csv, TensorBoard and the console, written by rank 0."""

import csv
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.errors import SaveError, UserError
from common.runs import files

CONSOLE_SECONDS = 10.0


class Logger:
    """Writes one row of metrics an iteration; every rank has one, only rank 0's does anything.

    An iteration's number is the count of finished iterations, 1 to `total_iterations`. After a resume, rows
    beyond `start_iteration` are dropped from metrics.csv and hidden in TensorBoard, as they come again.
    The methods are no collectives. A full disk raises SaveError.
    """

    def __init__(
        self,
        run_dir: Path | str,
        comm: Any,  # an `mpi_utils.comm.Comm`
        total_iterations: int,
        start_iteration: int = 0,
        progress: bool = True,
    ):
        self.active: bool = comm.is_root
        self.total, self.progress = total_iterations, progress
        self.path = Path(run_dir) / "metrics.csv"
        if not self.active:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open_table(start_iteration)
            self._open_tensorboard(start_iteration)
        except OSError as error:
            raise UserError(f"{run_dir}: cannot be written ({error.strerror}); choose another") from error
        except csv.Error as error:
            raise UserError(f"{self.path}: is no table of metrics ({error}); move it away") from error
        self.start, self.began = start_iteration, time.monotonic()
        self.printed = -CONSOLE_SECONDS
        show_bar = progress and sys.stderr.isatty()
        self.bar = tqdm(total=total_iterations, initial=start_iteration, unit="it") if show_bar else None

    def log(self, iteration: int, metrics: dict[str, float]) -> None:
        """Append the metrics of a finished iteration; new names widen the table, absent ones stay empty."""
        if not self.active:
            return
        values = {name: float(value) for name, value in metrics.items()}
        try:
            self._write_row(iteration, values)
            self._write_events(iteration, values)
        except OSError as error:
            raise SaveError(f"{self.path}: cannot be written: {error.strerror}; make room") from error
        if self.bar is not None:
            self.bar.set_postfix(_returns(values), refresh=False)
            self.bar.update(iteration - self.bar.n)
        elif self.progress:
            due = time.monotonic() - self.printed >= CONSOLE_SECONDS
            if due or iteration == self.total:
                self._print(iteration, values)

    def sync(self) -> None:
        """Wait until all rows are on the disk, before a save: it must not be ahead of its table."""
        if self.active:
            try:
                os.fsync(self.table.fileno())
            except OSError as error:
                raise SaveError(f"{self.path}: cannot be written: {error.strerror}; make room") from error

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        if self.active:
            self.active = False
            self.table.close()
            self.events.close()
            if self.bar is not None:
                self.bar.close()

    def _open_table(self, start: int) -> None:
        """Keep the rows up to iteration `start` of an existing table, each once and in order."""
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        lines = text.replace("\0", "").split("\n")[:-1]  # without the half row that a killed run may leave
        header, *rows = list(csv.reader(lines)) or [["iteration"]]
        if header[:1] != ["iteration"]:
            raise UserError(f"{self.path}: is no table of metrics; move it away")
        kept = {int(row[0]): row for row in rows if len(row) == len(header) and row[0].isdecimal()}
        self.header = header
        self._rewrite([kept[i] for i in sorted(kept) if i <= start])

    def _rewrite(self, rows: list[list[str]]) -> None:
        files.write_atomic(self.path, "".join(map(_line, [self.header, *rows])).encode())
        self.table = open(self.path, "a", encoding="utf-8", newline="")

    def _write_row(self, iteration: int, values: dict[str, float]) -> None:
        new = [name for name in values if name not in self.header]
        if new:
            self.table.close()
            with open(self.path, encoding="utf-8", newline="") as table:
                rows = [row + [""] * len(new) for row in list(csv.reader(table))[1:]]
            self.header = self.header + new
            self._rewrite(rows)
        cells = [repr(values[name]) if name in values else "" for name in self.header[1:]]
        self.table.write(_line([str(iteration), *cells]))
        self.table.flush()

    def _open_tensorboard(self, start: int) -> None:
        # The events are written here and now: SummaryWriter's thread dies on a full disk, and then its queue
        # blocks us for ever.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder = self.path.parent / "tensorboard"
        folder.mkdir(exist_ok=True)
        self.events = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        if start:
            log = SessionLog(status=SessionLog.START)
            self.events.write_event(Event(step=start + 1, wall_time=time.time(), session_log=log))

    def _write_events(self, iteration: int, values: dict[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()])
        self.events.write_event(Event(step=iteration, wall_time=time.time(), summary=summary))
        self.events.flush()

    def _print(self, iteration: int, values: dict[str, float]) -> None:
        self.printed = time.monotonic()
        rate = (self.printed - self.began) / (iteration - self.start)
        remaining = tqdm.format_interval(rate * (self.total - iteration))
        numbers = "".join(f"  {name} {value}" for name, value in _returns(values).items())
        print(f"iteration {iteration}/{self.total}  remaining {remaining}{numbers}", flush=True)


def _returns(values: dict[str, float]) -> dict[str, str]:
    """Return the few metrics that are worth a line on the console."""
    named = {name: value for name, value in values.items() if name.endswith("/return")} or values
    return {name: f"{value:.4g}" for name, value in list(named.items())[:3]}


def _line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
