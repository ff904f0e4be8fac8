"""The part of a report that answers a reader, in a real browser."""

import csv
import importlib.util
import io
import json
import re
import subprocess
import sys
from urllib.parse import unquote

import pytest

from comparison.report import EXPLORER, EXPLORER_STYLE, explorer
from tests.helpers.launch import ROOT

PAGES = sorted((ROOT / "results/comparison").glob("*.html"))
PAGE = ROOT / "results/comparison/particle.html"
SCRIPT = """
const all = selector => [...document.querySelectorAll(selector)];
const texts = list => list.map(element => element.textContent);
const found = {};
const circle = document.querySelector('[data-panel=sorted] [data-agent="17"]');
circle.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
found.hot = all("circle.hot").map(c => [c.closest("svg").dataset.panel, c.dataset.agent]);
found.told = document.querySelector(".told").textContent;
circle.dispatchEvent(new PointerEvent("pointerout", {bubbles: true}));
found.left = all("circle.hot").length;
document.querySelector(".worst button").click();
const number = document.querySelector("#explore input[type=number]");
found.kept = [document.querySelector(".worst button").textContent, number.value];
found.before = new Set(all("[data-panel=sorted] circle").map(c => c.dataset.method)).size;
document.querySelector("#explore input[value='RL²']").click();
found.after = [...new Set(all("[data-panel=sorted] circle").map(c => c.dataset.method))];
found.still = all("circle.hot").length;
found.worst = texts(all(".worst li")).map(text => text.trim());
const column = () => [...document.querySelector(".wide tbody").rows].map(row => row.cells[1].textContent);
all(".wide th")[1].click();
found.down = column();
all(".wide th")[1].click();
found.up = column();
found.aria = all(".wide th")[1].getAttribute("aria-sort");
const width = document.documentElement.clientWidth;
found.over = all("main *").filter(e => !e.closest(".scroll") && e.getBoundingClientRect().right > width + 1)
  .map(e => e.tagName);
return found;
"""


def look(page, width):
    browser = [sys.executable, ROOT / "tests/helpers/browser.py", page, str(width)]
    done = subprocess.run(browser, input=SCRIPT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("PySide6"), reason="no browser: pip install PySide6")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_reader_follows_an_agent_chooses_methods_and_sorts(width):
    seen = look(PAGE, width)
    assert seen["console"] == []
    found = seen["found"]
    panels = [panel for panel, _ in found["hot"]]
    assert {agent for _, agent in found["hot"]} == {"17"}
    assert {panel: panels.count(panel) for panel in panels} == {"sorted": 6, "methods": 6, "plane": 1}
    assert "Agent 17 (" in found["told"] and "one policy for all -131.5 (worst tenth)" in found["told"]
    assert found["left"] == 0  # it was only pointed at
    assert found["kept"][0] == found["kept"][1]  # a click keeps it
    assert found["before"] == 6 and len(found["after"]) == 5 and "RL²" not in found["after"]
    assert found["still"] == 11 and len(found["worst"]) == 5  # the agent that is kept stays so
    numbers = [[float(text.split()[0]) for text in found[way]] for way in ("down", "up")]
    assert numbers[0] == sorted(numbers[0], reverse=True) and numbers[1] == sorted(numbers[0])
    assert found["aria"] == "ascending" and found["over"] == []


def test_the_worst_tenth_is_that_of_the_data():
    """The agent of the test above, by the page's own CSV."""
    [data] = re.findall(r'download="maps.csv" href="data:text/csv;charset=utf-8,([^"]*)"', PAGE.read_text())
    rows = list(csv.DictReader(io.StringIO(unquote(data))))
    returns = sorted(rows, key=lambda row: float(row["one policy for all"]))
    assert "17" in [row["agent"] for row in returns[: len(rows) // 10]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_reports_are_as_the_code_makes_them_now(page):
    text = page.read_text()
    assert EXPLORER.read_text() in text and EXPLORER_STYLE in text and "\n".join(explorer()) in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text)  # nothing is fetched
