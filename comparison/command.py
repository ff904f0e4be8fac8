"""Compare methods of personalising on one population:

    mpirun -np N python -m evaluate compare --population FILE --seeds 0,1,2 --out DIR \\
        [--methods rl2,rmdp,persim,caml,single,per_group,per_agent] [flags]

Each method with each seed is an experiment; ranks (and further processes of the same command) take those that
nobody works on. What is done is not done again: the same command continues where it was stopped.
"""

from pathlib import Path

from common.allocator import keep_freed_memory
from common.config import check_outputs
from common.runs.files import write_atomic
from comparison import conclusions, figures, report, tables
from comparison.config import Settings, parse_settings
from comparison.experiments import experiments_of
from comparison.problem import load_problem
from envs import Problem
from experiments.grid import Result, results, work_apart
from mpi_utils.comm import Comm, set_threads


def main(comm: Comm, flags: list[str]) -> None:
    """Check, work on the experiments that are free, write tables and report. A collective."""
    set_threads(comm)
    keep_freed_memory()
    with comm.agree():
        if comm.is_root and flags[:1] in (["-h"], ["--help"]):
            print(__doc__)
        settings = parse_settings(flags, show=comm.is_root)
        if comm.is_root:
            check_outputs(settings)
        problem = load_problem(settings.population, settings.environment, settings.max_episode_len)
        experiments, left_out = experiments_of(settings, problem)
        if comm.is_root:
            for name, reason in left_out.items():
                print(f"{name} is left out: {reason}", flush=True)
    work_apart(experiments, comm)
    with comm.agree():
        if comm.is_root:
            write(problem, settings, list(results(experiments).values()))


def write(problem: Problem, settings: Settings, found: list[Result]) -> None:
    """Tables and report of all results."""
    out, note = Path(settings.out), tables.note_of(problem)
    rows = tables.rows_of(found, getattr(problem.family, "steps_per_day", 0))
    said = conclusions.sentences(found, rows)
    page = report.html(problem, settings, found, rows, said)
    picture = figures.summary(found, rows)
    files: dict[Path, str | bytes] = {
        out / "table.csv": tables.method_csv(rows),
        out / "agents.csv": tables.agents_csv(problem, found),
        out / "table.json": tables.as_json(problem, settings, found, rows, said),
        out / "comparison.md": tables.markdown(problem, settings, rows, "comparison", said),
        out / "comparison.html": page,
        out / "comparison.png": picture,
    }
    if settings.page:
        Path(settings.page).parent.mkdir(parents=True, exist_ok=True)
        text = tables.markdown(problem, settings, rows, Path(settings.page).name, said)
        files[Path(f"{settings.page}.md")] = text
        files[Path(f"{settings.page}.html")] = page
        files[Path(f"{settings.page}.png")] = picture
    for path, content in files.items():
        write_atomic(path, content if isinstance(content, bytes) else content.encode())
    print(tables.budget_line(problem, settings, rows), tables.plain(rows), *said, sep="\n")
    print(note, end="\n" if note else "")
    print(f"report: {settings.page or out / 'comparison'}.html")
