"""One run of a sweep: train it, evaluate it, and know whether that is done."""

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path

import train
from common.runs import checkpoint, run_folder
from common.runs.files import write_atomic


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the grid: the swept fields as they were given, and its whole configuration."""

    values: dict[str, str]
    config: object

    @property
    def folder(self) -> Path:
        return train.folder(self.config)


def work(system: str, cell: Cell, evaluation, protocol, comm) -> bool:
    """Train and evaluate a run, each unless it is done; False if another process holds the run."""
    held, iteration = None, 0
    with comm.agree():
        if comm.is_root:
            with contextlib.suppress(run_folder.InUse):
                held = train.claim(system, cell.config)
                iteration = newest(cell)[0]
    free, iteration = comm.bcast_object((held is not None, iteration))
    if not free:
        return False
    with held or contextlib.nullcontext():
        if iteration < cell.config.iterations:
            if comm.is_root:
                print(f"training {cell.folder}", flush=True)
            if not train.run(system, cell.config, comm):
                raise SystemExit(0)  # asked to save and stop; the loop has told so
        evaluate(cell, evaluation, protocol, comm)
    return True


def newest(cell: Cell) -> tuple[int, Path | None, str]:
    """Iteration, folder and digest of the newest valid save."""
    path, _ = checkpoint.newest_valid(cell.folder)
    if path is None:
        return 0, None, ""
    manifest = (path / checkpoint.MANIFEST).read_bytes()  # it holds the digests of all else
    return json.loads(manifest)["step"], path, hashlib.sha256(manifest).hexdigest()


def evaluate(cell: Cell, evaluation, protocol, comm) -> None:
    """Write evaluation.json of the newest save unless it is there."""
    path, digest = None, ""
    with comm.agree():
        if comm.is_root and rows_of(cell, protocol) is None:
            _, path, digest = newest(cell)
    path = comm.bcast_object(path)
    if path is None:
        return
    with comm.agree():
        step, state = checkpoint.load(path)
        stored = run_folder.read_config(cell.folder)
    rows = evaluation.evaluate(stored | {"iteration": step}, state, protocol, comm)
    report = {"run": str(cell.folder), "step": step, "config": stored, "rows": rows}
    report |= {"save": digest, "settings": dataclasses.asdict(protocol)}
    with comm.agree():
        if comm.is_root:
            write_atomic(cell.folder / "evaluation.json", json.dumps(report, indent=1).encode() + b"\n")


def rows_of(cell: Cell, protocol) -> list[dict] | None:
    """The rows of a finished run's evaluation; None unless they are of its newest save and these settings."""
    try:
        iteration, _, digest = newest(cell)
        report = json.loads((cell.folder / "evaluation.json").read_bytes())
    except (OSError, ValueError):
        return None
    settings = json.loads(json.dumps(dataclasses.asdict(protocol)))
    made_for = report.get("save"), report.get("settings")
    return report["rows"] if iteration >= cell.config.iterations and made_for == (digest, settings) else None
