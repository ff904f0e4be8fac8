"""What the documents name exists: the targets of links, the modules of commands, and their flags."""

import dataclasses
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

import comparison.config
from common.config import renames
from evaluate import EVALUATIONS
from train import SYSTEMS

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "results").rglob("*.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
MODULE = re.compile(r"python3? -m ([\w.]+)")
FENCED = re.compile(r"```bash\n(.*?)```", re.DOTALL)
FOREIGN = {"venv", "pip", "pytest"}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def commands(text: str) -> list[list[str]]:
    """The words behind `python -m` of each command in the blocks of a page."""
    lines = "\n".join(FENCED.findall(text)).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.partition(" > ")[0].split(" && ")]
    return [shlex.split(part.split("python -m ")[1], comments=True) for part in parts if "python -m " in part]


def known(*settings_classes: type) -> set[str]:
    """The flags of some settings, under their present and their old names."""
    names: set[str] = set()
    for settings_class in settings_classes:
        names |= {field.name for field in dataclasses.fields(settings_class)} | set(
            renames(settings_class)[0]
        )
    return names


def flags_of(words: list[str]) -> set[str]:
    return {word[2:].partition("=")[0] for word in words if re.match(r"--\w", word)}


def unknown_flags(words: list[str]) -> set[str]:
    """Flags of a command that its program does not have; empty for programs that are not looked at."""
    module, *rest = words
    if module in ("train", "benchmarks.throughput", "experiments.sweep"):
        system = rest[0] if rest and rest[0] in SYSTEMS else "rl2"
        flags = flags_of(rest) - {"preset"}
        if module == "experiments.sweep":
            at = rest.index("--")
            over = rest[rest.index("--over") + 1 : at]
            varied = {word.partition("=")[0] for word in over if re.match(r"\w+=", word)}
            flags = varied | flags_of(rest[at:])
        return flags - known(SYSTEMS[system].config)
    if module == "evaluate":
        settings = [evaluation.Settings for evaluation in EVALUATIONS.values()]
        return flags_of(rest) - known(*([comparison.config.Settings] if rest[0] == "compare" else settings))
    return set()


def test_commands_of_a_page():
    text = "```bash\nmpirun -np 2 python -m train rmdp --a 1 \\\n  --b=2 > log\npython -m x --c && ls\n```\n"
    assert commands(text) == [["train", "rmdp", "--a", "1", "--b=2"], ["x", "--c"]]
    assert unknown_flags(["train", "rmdp", "--num_agents", "3", "--b=2"]) == {"b"}
    sweep = "experiments.sweep rmdp --over a=1,2 seed=0 --runs r -- --c 1".split()
    assert unknown_flags(sweep) == {"a", "c"}


@each_page
def test_links_lead_somewhere(page):
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    paths = [page.parent / target.partition("#")[0] for target in targets if not target.startswith("#")]
    assert [str(path) for path in paths if not path.exists()] == []


@each_page
def test_modules_can_be_run(page):
    modules = {module.rstrip(".") for module in MODULE.findall(page.read_text())} - FOREIGN
    assert [name for name in modules if not importlib.util.find_spec(name)] == []


@each_page
def test_commands_have_these_flags(page):
    found = {" ".join(words): unknown_flags(words) for words in commands(page.read_text())}
    assert {words: flags for words, flags in found.items() if flags} == {}
