"""Compare ways to personalise on one population:

    mpirun -np N python -m evaluate compare --population FILE --seeds 0,1,2 --out DIR \\
        [--methods rl2,rmdp,persim,caml,single,per_agent] [flags]

Each method with each seed is a cell; ranks (and further processes of the same command) take cells that nobody
works on. A cell that is done is not done again: the same command continues where it was stopped.
"""

from pathlib import Path

from common.allocator import keep_freed_memory
from common.runs.files import write_atomic
from comparison import figures, report, tables
from comparison.config import parse_settings
from comparison.experiments import cells_of, stored, work
from comparison.problem import People
from envs import Population
from mpi_utils.comm import set_threads


def main(comm, flags: list[str]) -> None:
    """Check, work on the cells that are free, write tables and report. A collective."""
    set_threads(comm)
    keep_freed_memory()
    with comm.agree():
        if comm.is_root and flags[:1] in (["-h"], ["--help"]):
            print(__doc__)
        settings = parse_settings(flags, show=comm.is_root)
        people = People(Population.load(settings.population), settings.environment, settings.max_episode_len)
        cells = cells_of(settings, people.n)
        Path(settings.out, "cells").mkdir(parents=True, exist_ok=True)
    left = cells
    while left:
        busy = [cell for cell in left if not work(cell, people, settings)]
        if len(busy) == len(left):
            break  # the rest is in the hands of others
        left = busy
    comm.barrier()
    with comm.agree():
        if comm.is_root:
            found = {cell: stored(cell, settings, people) for cell in cells}
            write(people, settings, [result for result in found.values() if result])
            if missing := [cell.file for cell, result in found.items() if not result]:
                print(f"still worked on elsewhere: {', '.join(missing)}; the same command later adds them")


def write(people: People, settings, results: list[dict]) -> None:
    """Tables and report of all results."""
    out, rows = Path(settings.out), tables.rows_of(results)
    page = report.html(people, settings, results, rows)
    files = {"table.csv": tables.as_csv(rows), "agents.csv": tables.agents_csv(people, results)}
    files |= {"table.json": tables.as_json(people, settings, results, rows)}
    files |= {"comparison.md": tables.markdown(people, settings, rows, "comparison"), "comparison.html": page}
    picture = figures.summary(results, rows)
    places = {out / name: content for name, content in files.items()} | {out / "comparison.png": picture}
    if settings.page:
        Path(settings.page).parent.mkdir(parents=True, exist_ok=True)
        text = tables.markdown(people, settings, rows, Path(settings.page).name)
        pages = {".md": text, ".html": page, ".png": picture}
        places |= {Path(f"{settings.page}{ending}"): content for ending, content in pages.items()}
    for path, content in places.items():
        write_atomic(path, content if isinstance(content, bytes) else content.encode())
    print(tables.plain(rows))
    print(f"report: {settings.page or out / 'comparison'}.html")
