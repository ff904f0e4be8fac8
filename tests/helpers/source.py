"""What the source says of itself: its files, the imports between its modules, its functions."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.launch import ROOT

SYSTEMS = ("rl2", "rmdp", "persim", "caml")
PLACES = ("train", "evaluate", "comparison", "experiments", "benchmarks", *SYSTEMS)
PLACES += ("mpi_utils", "common", "envs")
FILES = [
    path for place in PLACES for path in sorted([*ROOT.glob(f"{place}.py"), *(ROOT / place).rglob("*.py")])
]


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text())


def module_name(path: Path) -> str:
    """`rl2.learner` for rl2/learner.py, `rl2` for rl2/__init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imported(path: Path, types: bool = True) -> Iterator[tuple[str, int]]:
    """Full names of what a file imports, in functions too, with their lines; `types`: for types alone too."""
    left_out = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            left_out |= {child for statement in node.body for child in ast.walk(statement)}
        elif node in left_out:
            continue
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield (submodule if submodule in MODULES else node.module), node.lineno
        elif isinstance(node, ast.Call) and called(node).endswith("import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield argument.value, node.lineno


def called(node: ast.Call) -> str:
    """What a call calls, as it is written: `torch.load`."""
    return ast.unparse(node.func)


def functions(path: Path) -> set[str]:
    """Names of all functions and methods of a file."""
    return {node.name for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef)}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other."""
    reached = {node: reach(graph, node) for node in graph}
    groups = {tuple(sorted(other for other in reached[node] if node in reached[other])) for node in graph}
    return [list(group) for group in sorted(groups) if group]


def reach(graph: dict[str, set[str]], start: str) -> set[str]:
    """What can be reached from a node by one arrow or more."""
    found, todo = set(), [start]
    while todo:
        for node in graph[todo.pop()] - found:
            found.add(node)
            todo.append(node)
    return found
