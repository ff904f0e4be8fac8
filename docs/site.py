"""What mkdocs.yml needs beside docs/: README, CONTRIBUTING, CHANGELOG and results/ as pages of the site.

They stay where they are. On the site docs/ is the root, so links are followed from a page's place in the
project to their target's place on the site; one to what the site does not have becomes plain text.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
ENDINGS = {".md", ".png", ".gif", ".html", ".csv", ".json"}  # of what is shown of results/
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside docs/."""
    added = {page: ROOT / source for source, page in PAGES.items()}
    for path in sorted((ROOT / "results").rglob("*")):
        if path.suffix in ENDINGS:
            added[path.relative_to(ROOT).as_posix()] = path
    for page, path in added.items():
        files.append(File.generated(config, page, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn the links of a page, which are right in the project, into those of the site."""
    home = PurePosixPath(page.file.src_uri)
    source = in_project(home)

    def turned(match: re.Match) -> str:
        picture, text, link = match.groups()
        target, mark, anchor = link.partition("#")
        if "://" in link or not target:
            return match[0]
        place = site_place(os.path.normpath(source.parent / target))
        if place is None or files.get_file_from_path(place) is None:
            return text
        return f"{picture}[{text}]({os.path.relpath(place, home.parent)}{mark}{anchor})"

    return LINK.sub(turned, markdown)


def in_project(page: PurePosixPath) -> PurePosixPath:
    """Where the source of a page of the site lies in the project."""
    for source, name in PAGES.items():
        if str(page) == name:
            return PurePosixPath(source)
    return page if page.parts[0] == "results" else "docs" / page


def site_place(path: str) -> str | None:
    """The place on the site of a file of the project, None if it has none."""
    if path in PAGES:
        return PAGES[path]
    if path == "docs/README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith(("docs/", "results/")) else None
