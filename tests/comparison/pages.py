"""Runs the commands of a page of documentation in order, as a reader would, and holds the page to them."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.launch import OPEN_MPI, ROOT

FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")


def steps(text: str) -> list[tuple[str, str | None]]:
    """The commands of a page and what the block behind each shows; None where none follows directly."""
    blocks = [(m.group(1), m.group(2), m.start(), m.end()) for m in FENCE.finditer(text)]
    found = []
    for i, (kind, content, _, end) in enumerate(blocks):
        if kind != "bash":
            continue
        shown = None
        if i + 1 < len(blocks) and blocks[i + 1][0] == "" and not text[end : blocks[i + 1][2]].strip():
            shown = blocks[i + 1][1]
        found.append((content, shown))
    return found


def write_files(text: str, folder: Path) -> None:
    """Files that a page gives: the block behind a paragraph that ends with their name in backquotes."""
    for match in re.finditer(r"`([\w.]+\.(?:py|csv))`[^`]*?\n\n```\w*\n(.*?)```", text, re.DOTALL):
        (folder / match.group(1)).write_text(match.group(2))


def run(command: str, folder: Path, limit: float = 1500.0) -> str:
    """What a command prints to stdout, in `folder`; AssertionError unless it succeeds."""
    beside = Path(sys.executable).parent
    environment = os.environ | OPEN_MPI | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{beside}:{environment['PATH']}"
    shell = ["bash", "-e", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def words(text: str) -> list[str]:
    """Lines without their numbers and spaces."""
    return sorted(re.sub(r"[\s±:]+", " ", NUMBER.sub("", line)).strip() for line in text.strip().splitlines())


def agreeing(shown: str, printed: str) -> float:
    """The share of the numbers of one text that are in the other, within 5 %."""
    wanted, found = ([float(n.replace(",", "")) for n in NUMBER.findall(t)] for t in (shown, printed))
    near = [any(abs(a - b) <= 0.05 * abs(a) + 0.005 for b in found) for a in wanted]
    return sum(near) / max(1, len(near))
