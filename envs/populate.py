"""Make a population file:  python -m envs.populate cart_pole --num_agents 100 --seed 0 --out poles.npz

Agents are drawn by the environment, or those that it has by name (diabetes: all 30 patients, an age group, or
single ones, with commas), or read from a table of task parameters: a CSV file whose header names the
parameters, one row an agent. ENVIRONMENT is a family's name, or module:factory for one's own.
"""

import argparse
import csv
import os
import re
import sys
from pathlib import Path

import numpy as np

from envs.families import make_family
from envs.gym_family import load_factory
from envs.parameters import EnvError
from envs.population import Population


def main(arguments: list[str]) -> None:
    """Write the file and print what it holds; raises `EnvError` for whatever cannot be."""
    parser = argparse.ArgumentParser("python -m envs.populate", description=__doc__.split("\n")[0])
    parser.add_argument("environment", help="a family's name, or module:factory")
    parser.add_argument("--num_agents", type=int, help="agents to draw (default: 100)")
    parser.add_argument("--seed", type=int, help="draws them (default: 0)")
    parser.add_argument("--members", default="", help="agents by name, e.g. adult or adult#001,child#002")
    parser.add_argument("--table", default="", help="a CSV file of parameters, in place of drawing")
    parser.add_argument("--out", required=True, help="the file to write, .npz")
    settings = parser.parse_args(arguments)
    name, out = settings.environment, Path(settings.out).expanduser()
    if out.suffix != ".npz":
        raise EnvError(f"--out {out}: must end with .npz")
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if out.is_dir() or not there.is_dir() or not os.access(there, os.W_OK):
        raise EnvError(f"--out {out}: cannot be written; choose another place")
    settings.num_agents, settings.seed = drawn(settings)
    family = make_family(load_factory(name) if ":" in name else name)
    if settings.table and settings.members:
        raise EnvError("--table and --members are given; give one of them")
    if settings.members:
        members = getattr(family, "members", None)
        if members is None:
            raise EnvError(f"--members: {name} has no agents by name; give --num_agents or --table")
        parameters = members(settings.members.split(","))
    elif settings.table:
        parameters = read_table(Path(settings.table).expanduser())
    elif settings.num_agents < 1 or settings.seed < 0:
        raise EnvError("give --num_agents of at least 1 and --seed of at least 0")
    else:
        parameters = family.sample(np.random.default_rng(settings.seed), settings.num_agents)
    parameters = family.check(parameters)
    family.make_vec({key: values[:1] for key, values in parameters.items()}).close()  # a user's may fail
    population = Population(name, parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    population.save(out)
    print(population.describe())


def drawn(settings: argparse.Namespace) -> tuple[int, int]:
    """How many agents to draw, and their seed; raises `EnvError` where they are given for nothing."""
    source = "--table" if settings.table else "--members" if settings.members else ""
    for name in ("num_agents", "seed"):
        if source and getattr(settings, name) is not None:
            raise EnvError(f"--{name}: draws agents, but {source} gives them; leave one of the two out")
    num_agents = 100 if settings.num_agents is None else settings.num_agents
    return num_agents, settings.seed or 0


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of a CSV file as arrays [n] of finite numbers; raises `EnvError` with line and column."""
    try:
        with open(path, "rb") as start:
            encoding = "utf-16" if start.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with open(path, newline="", encoding=encoding) as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError:
        raise EnvError(f"--table {path}: is not UTF-8 text; save it as that") from None
    except (OSError, csv.Error) as error:
        raise EnvError(f"--table {path}: cannot be read ({error})") from None
    names = [name.strip() for name in lines[0][1]] if lines else []
    if len(names) == 1 and (other := re.search("[;\t|]", names[0])):
        found = f"{path}:{lines[0][0]}: its columns are separated by {other[0]!r}"
        raise EnvError(f"{found}; separate them by commas, and write decimals with points")
    if len(lines) < 2 or not all(names) or len(set(names)) < len(names):
        raise EnvError(f"--table {path}: give a header of different names and a row for each agent")
    table = np.zeros((len(lines) - 1, len(names)))
    for agent, (line, row) in enumerate(lines[1:]):
        if len(row) != len(names):
            raise EnvError(f"{path}:{line}: {len(row)} values for {len(names)} parameters; correct it")
        for column, text in enumerate(row):
            try:
                table[agent, column] = float(text)
            except ValueError:
                raise EnvError(f"{path}:{line}:{column + 1}: {text!r} is no number; correct it") from None
            if not np.isfinite(table[agent, column]):
                where = f"{path}:{line}:{column + 1}: {names[column]!r}"
                raise EnvError(f"{where} is {text.strip()}, not finite; give a finite number")
    # Beyond 2^53 a float may stand for several whole numbers.
    whole = ((table == np.round(table)) & (np.abs(table) <= 2**53)).all(0)
    columns = [column.astype(np.int64) if w else column for column, w in zip(table.T, whole, strict=True)]
    return dict(zip(names, columns, strict=True))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (EnvError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(2) from None
