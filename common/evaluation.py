"""What every evaluation shares: its flags, the stored configuration, rows, and tables of rows."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np

from common import film
from common.config import (
    AT_LEAST_ZERO,
    MAY_BE_EMPTY,
    OUTPUT_FILE,
    OUTPUT_FOLDER,
    PICTURE,
    Applies,
    Group,
    Output,
    check,
    current,
    from_stored,
    given_by,
    parse_flags,
    without_effect,
)
from common.errors import UserError

Row = dict[str, Any]  # method, metric, mean, se, n, then the columns of its paper
Settings = TypeVar("Settings", bound="EvaluationSettings")
Config = TypeVar("Config")
FILM = Output((".mp4", ".gif"))
OF_VIDEO = Applies("--video", lambda s: s.video)
OF_BASELINES = Applies("--baselines all", lambda s: s.baselines == "all")
EVALUATION = 2**31  # the iteration number of evaluation's streams, which no training run reaches


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """The flags of every evaluation; a system's own come after them."""

    seed: Annotated[int, AT_LEAST_ZERO, Group("evaluation")] = 0
    """Draws starts, tasks and all noise; another seed gives others."""
    environment: Annotated[str, MAY_BE_EMPTY] = ""
    """Needed only for a run on a user's own module:factory, which is never taken from a file."""
    json: Annotated[str, MAY_BE_EMPTY, OUTPUT_FILE] = ""
    """Write the rows here as JSON (default: evaluation.json in the run folder, if it can be written)."""
    plot: Annotated[str, MAY_BE_EMPTY, PICTURE] = ""
    """Draw the figures here as PNG (default: evaluation.png in the run folder, likewise)."""
    export: Annotated[str, MAY_BE_EMPTY, OUTPUT_FOLDER] = ""
    """Write the run's networks to this new folder: TorchScript files that run without this project, and a
    card for each."""
    onnx: bool = False
    """Write them as ONNX too (needs the extra `onnx`)."""
    video: Annotated[str, MAY_BE_EMPTY, FILM] = ""
    """Instead of all tables, film some agents side by side: an .mp4 (needs the extra `video`) or a .gif."""
    video_agents: Annotated[str, MAY_BE_EMPTY, OF_VIDEO] = ""
    """Their numbers, of PerSim their names, with commas between; default: a few. Those of RL² are numbers
    of the tasks of its tables, 0 to 99."""
    video_steps: Annotated[int, AT_LEAST_ZERO, OF_VIDEO] = 0
    """Steps of the film at most; 0: an episode, of RL² all episodes that its tables have."""

    # Flags that a film heeds; of the others none has an effect on it.
    FILMED: ClassVar[tuple[str, ...]] = ("seed", "environment", "video", "video_agents", "video_steps")


def parse_settings(settings_class: type[Settings], flags: list[str], show: bool) -> Settings:
    """Settings from `evaluate`'s flags, checked."""
    settings = parse_flags(settings_class, flags, "python -m evaluate RUN", show=show)
    check(settings)
    if settings.video:
        idle = given_by(current(settings_class, flags)).keys() - set(settings.FILMED)
        for name in sorted(idle):
            raise UserError(without_effect(name, "tables, which --video replaces"))
        film.check(settings.video)
    return settings


def stored_config(
    config_class: type[Config], stored: dict[str, Any], environment: str | None = None
) -> Config:
    """The run's configuration from its config.json; a user's factory must be named again."""
    config = from_stored(config_class, stored)
    name = getattr(config, "environment", "")
    if environment is not None and ":" in name and environment != name:
        raise UserError(f"this run trained on {name!r}; name it again: --environment {name}")
    if environment and environment != name:
        raise UserError(f"--environment {environment}: the run trained on {name!r}; leave it out")
    return config


def row(method: str, metric: str, values: Any, **columns: Any) -> Row:
    """Mean and standard error of the values that are finite, or of one value, which has no error."""
    values = np.atleast_1d(np.asarray(values, np.float64))
    values = values[np.isfinite(values)]
    n = len(values)
    mean = float(values.mean()) if n else None
    return {"method": method, "metric": metric, "mean": mean, "se": standard_error(values), "n": n, **columns}


def standard_error(values: Any) -> float | None:
    """The standard error of the mean of values `[n]`; None of fewer than two."""
    n = len(values)
    return float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None


def worst_decile(values: Any) -> float:
    """The mean of the tenth of the values `[n]` that is lowest, at least one."""
    values = np.sort(values)
    return float(values[: -(-len(values) // 10)].mean())


def as_csv(rows: Iterable[Row], columns: Sequence[str] | None = None, digits: int | None = None) -> str:
    """Rows as CSV, by default with the columns of all of them and all digits of numbers."""
    rows = list(rows)
    if digits:
        rows = [{k: f"{v:.{digits}g}" if isinstance(v, float) else v for k, v in one.items()} for one in rows]
    columns = columns or list(dict.fromkeys(name for one in rows for name in one))
    return lines_as_csv(columns, ([one.get(name, "") for name in columns] for one in rows))


def lines_as_csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Lines of values as CSV, which may have several columns of one name."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *lines])
    return out.getvalue()


def as_markdown(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A table of Markdown; cells are text or numbers as they are."""
    table = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in table)
