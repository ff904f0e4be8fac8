"""A population: n tasks of one environment as stacked arrays."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from envs.families import FAMILIES
from envs.parameters import EnvError, check_parameters, one_line

FORMAT = 1


class Population:
    """n tasks of one environment: `parameters` maps names to arrays `[n, ...]` of finite numbers.

    `environment` is a family's name, or `module:factory` for a user's own. Raises `EnvError`.
    """

    def __init__(self, environment: str, parameters: dict[str, np.ndarray]):
        if environment not in FAMILIES and ":" not in str(environment):
            known = ", ".join(FAMILIES)
            raise EnvError(f"unknown environment {environment!r}; known are {known} and module:factory")
        self.environment = environment
        self.parameters = check_parameters(f"population of {environment}", parameters)

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    def __getitem__(self, index: Any) -> "Population":
        """The tasks of a slice or an array of indices, in that order; possibly none."""
        rows = np.atleast_1d(np.arange(len(self))[index])
        return Population(self.environment, {name: array[rows] for name, array in self.parameters.items()})

    def save(self, path: Path | str) -> None:
        """Write one .npz at `path`, completely or not at all."""
        path = Path(path)
        arrays: dict[str, Any] = {f"parameter.{name}": array for name, array in self.parameters.items()}
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(part, "wb") as file:
                np.savez(file, format=FORMAT, environment=self.environment, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path | str) -> "Population":
        """Read what `save` wrote; nothing in the file is run. Raises `EnvError` for anything else."""
        try:
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise EnvError("its entries are compressed; save it with Population.save")
            with np.load(path, allow_pickle=False) as file:
                if file["format"].shape != () or file["format"] != FORMAT:
                    raise EnvError(f"its format is not {FORMAT}; save it again with this version")
                environment = str(file["environment"])
                names = [name for name in file.files if name.startswith("parameter.")]
                parameters = {name.removeprefix("parameter."): file[name] for name in names}
            return cls(environment, parameters)
        except FileNotFoundError as error:
            raise EnvError(f"no population at {path}; check the path") from error
        except EnvError as error:
            raise EnvError(f"population {path}: {error}") from error
        except Exception as error:  # a damaged file can fail in any way, and every way means the same
            raise EnvError(f"population {path} cannot be read ({one_line(error)}); save it again") from error

    @classmethod
    def of_run(cls, path: Path | str, environment: str) -> "Population":
        """The file of the flag `--population`. Raises `EnvError` if its tasks live in another environment."""
        population = cls.load(path)
        if population.environment != environment:
            raise EnvError(
                f"--population {path}: its agents live in {population.environment}, "
                f"not in --environment {environment}"
            )
        return population

    def describe(self) -> str:
        """A few lines: the environment, the number of tasks, each parameter's shape and range."""
        lines = [f"{self.environment}: {len(self)} tasks"]
        for name, array in self.parameters.items():
            text = f"  {name} {list(array.shape)} {array.dtype}"
            if array.size:
                text += f", {array.min():.4g} to {array.max():.4g}, mean {array.mean(dtype=np.float64):.4g}"
            lines.append(text)
        return "\n".join(lines)
