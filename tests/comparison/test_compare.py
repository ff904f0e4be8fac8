"""The real command with tiny settings: every way on the same agents, counted alike, one report."""

import base64
import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from common.runs.seeding import stream
from comparison.config import METHODS, RL2, Settings, parse_settings
from comparison.experiments import cells_of, identity
from comparison.problem import Padded, People, Rows, outcome, worst_decile
from comparison.problem import test as play
from comparison.tables import markdown, rows_of
from envs import Population, make_family
from tests.helpers.launch import command

TINY = "--effort 0.02 --episodes 2 --planned 1 --num_policies 2 --budgets 3 --max_episode_len 20".split()


def population(tmp_path, environment="cart_pole", n=6):
    path = tmp_path / f"{environment}.npz"
    agents = make_family(environment).sample(stream(0, "tasks"), n)
    Population(environment, agents).save(path)
    return path


def people(n=6, **options):
    return People(Population("cart_pole", make_family("cart_pole").sample(stream(0, "tasks"), n)), **options)


class Page(HTMLParser):
    """Tags, their attributes and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.mpi
def test_the_command_compares_all_and_continues(tmp_path):
    path, out = population(tmp_path), tmp_path / "out"
    flags = ["compare", "--population", path, "--seeds", "0,1", "--out", out, *TINY]
    done = command(2, "evaluate", *flags, limit=280)
    assert done.code == 0, done.output
    rows = {row["name"]: row for row in csv.DictReader((out / "table.csv").open(newline=""))}
    assert set(rows) == {*METHODS, "rmdp_k3"}
    assert done.output.count(": begun") == 2 * 7
    number = {name: {key: row[key] for key in row} for name, row in rows.items()}
    assert float(number["single"]["new_agent_steps"]) == 0 and float(number["single"]["policies"]) == 1
    assert float(number["per_agent"]["policies"]) == 6 and float(number["persim"]["policies"]) == 0
    each = float(number["per_agent"]["train_steps"]) / 6
    assert float(number["per_agent"]["new_agent_steps"]) == each
    for name in METHODS:
        assert float(number[name]["train_steps"]) > 0 and float(number[name]["seconds"]) > 0
        assert 1 <= float(number[name]["worst_decile"]) <= float(number[name]["mean"]) <= 20
        assert int(number[name]["seeds"]) == 2
    agents = list(csv.DictReader((out / "agents.csv").open(newline="")))
    assert len(agents) == 2 * 7 * 6 and {"force", "length", "return", "group"} <= agents[0].keys()
    for name in METHODS:
        own = [float(row["return"]) for row in agents if row["name"] == name]
        assert np.mean(own) == pytest.approx(float(number[name]["mean"]))
    cells = json.loads((out / "table.json").read_text())["cells"]
    assert len(cells) == 14 and all(len(cell["returns"]) == 6 for cell in cells)

    before = {file: file.stat().st_mtime_ns for file in (out / "cells").glob("*.json")}
    next((out / "cells").glob("single_seed1.json")).unlink()
    (out / "cells" / "rmdp_seed0.json").write_text("{ broken")
    done = command(1, "evaluate", *flags, "--page", tmp_path / "page", limit=280)
    assert done.code == 0, done.output
    assert done.output.count(": begun") == 2  # what is done is not done again
    again = {file: file.stat().st_mtime_ns for file in (out / "cells").glob("*.json")}
    changed = {file.name for file in before if before[file] != again[file]}
    assert changed == {"single_seed1.json", "rmdp_seed0.json"}
    text = (out / "comparison.md").read_text().replace("comparison.", "page.")
    assert (tmp_path / "page.md").read_text() == text
    redone = json.loads((out / "table.json").read_text())["cells"]
    for cell, other in zip(cells, redone, strict=True):  # a cell's numbers depend on nothing but its settings
        assert cell["returns"] == other["returns"] and cell["train_steps"] == other["train_steps"]
    page_is_whole((tmp_path / "page.html").read_text(), 7)


def page_is_whole(text, num_methods):
    page = Page(text)
    assert not page.open, "an element stays open"
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object")
        for name in ("src", "href"):
            value = attributes.get(name, "data:")
            assert value.startswith("data:"), f"<{tag} {name}={value[:40]}> needs a network"
    assert "http" not in re.sub(r'data:[^"]*"', "", text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 7 and all(image["alt"] for image in images)
    for image in images:
        svg = base64.b64decode(image["src"].split("base64,")[1]).decode()
        assert svg.startswith("<?xml") and "</svg>" in svg
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert len(links) == 7 and all(link.startswith("data:text/csv") for link in links)
    words = " ".join("".join(page.text).split())
    for said in ("one policy for all", "r-MDP", "CAML", "RL²", "PerSim", "one policy each", "worst tenth"):
        assert said in words
    assert "nan" not in words.split()


@pytest.mark.mpi
@pytest.mark.nightly
@pytest.mark.parametrize("environment", ["mountain_car", "particle"])
def test_other_environments(tmp_path, environment):
    path, out = population(tmp_path, environment), tmp_path / "out"
    done = command(2, "evaluate", "compare", "--population", path, "--out", out, *TINY, limit=280)
    assert done.code == 0, done.output
    rows = list(csv.DictReader((out / "table.csv").open(newline="")))
    assert len(rows) == 7 and all(np.isfinite(float(row["mean"])) for row in rows)
    page_is_whole((out / "comparison.html").read_text(), 7)


@pytest.mark.nightly
def test_a_users_own_population(tmp_path):
    table, file = tmp_path / "mine.csv", tmp_path / "mine.npz"
    table.write_text("length,force\n0.5,10\n0.3,6\n0.8,14\n0.4,12\n")
    factory = "envs.examples:cart_pole_family"
    from envs import populate

    populate.main([factory, "--table", str(table), "--out", str(file)])
    assert Population.load(file).parameters["force"].tolist() == [10, 6, 14, 12]
    flags = ["compare", "--population", file, "--out", tmp_path / "out", *TINY]
    refused = command(1, "evaluate", *flags)
    assert refused.code == 2 and f"name it again, --environment {factory}" in refused.output
    done = command(1, "evaluate", *flags, "--environment", factory)
    assert done.code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open(newline="")))
    assert len(rows) == 7


def test_starts_are_the_same_whoever_acts():
    seen = []

    def act(observation, reward, running):
        if reward is None:
            seen.append(observation.copy())
        return np.ones(len(observation), np.int64) * (len(seen) % 2)

    everyone = people()
    returns, steps = play(everyone, act, 3, seed=4)
    play(everyone, act, 3, seed=4)
    play(everyone, act, 2, seed=4)
    play(everyone, act, 3, seed=5)
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0][:12], seen[2])  # fewer episodes are the first of more
    assert (seen[0] != seen[3]).any()
    np.testing.assert_array_equal(returns, steps)
    assert returns.shape == (6, 3) and 5 < returns.mean() < 15  # pushed one way a pole falls


def test_an_episode_that_ended_pays_nothing_until_its_time_is_over():
    everyone = people(max_episode_len=30)
    env = Padded(everyone.family.make_vec(everyone.parameters, np.random.default_rng(0)), 30)
    first, _ = env.reset()
    total, held = np.zeros(6), None
    for t in range(30):
        seen, reward, terminated, truncated, infos = env.step(np.zeros(6, np.int64))
        total += reward
        assert not terminated.any() and truncated.all() == (t == 29)
        if t == 28:
            held = seen.copy()
    np.testing.assert_array_equal(infos["final_obs"], held)  # nobody moves any more
    assert total.max() < 20 and env.counter.steps == total.sum()  # a step pays 1 while a pole stands
    assert (seen != first).any() and np.abs(seen).max() < 0.06  # a fresh start


def test_rows_are_drawn_from_the_population_only():
    everyone = people()
    drawn = Rows(everyone).sample(np.random.default_rng(0), 200)
    pairs = set(zip(drawn["force"], drawn["length"], strict=True))
    assert pairs == set(zip(everyone.parameters["force"], everyone.parameters["length"], strict=True))


def test_figures_of_an_outcome():
    returns = np.arange(20.0)[:, None] + np.array([0.0, 2.0])
    made = outcome(returns, train_steps=7, new_agent_steps=3, policies=2, curve=[(0, returns - 1)])
    assert made["mean"] == 10.5 and made["worst_decile"] == 1.5  # of agents 0 and 1
    assert made["curve"] == [{"steps": 0.0, "mean": 9.5, "worst_decile": 0.5}]
    assert worst_decile(np.array([3.0, 1.0, 2.0])) == 1
    cell = made | {"name": "single", "seconds": 2.0, "seed": 0}
    rows = rows_of([cell, cell | {"mean": 12.5}])
    assert rows[0]["mean"] == 11.5 and rows[0]["se_mean"] == pytest.approx(1)
    text = markdown(people(), Settings(population="a", out="b"), rows, "page")
    assert "| one policy for all | 11.5 ± 1.0 | 1.5 ± 0.0 | 7 | 3 | 2 | 2 |" in text
    assert "envs.populate" not in text  # these agents are none that the command draws
    drawn = make_family("cart_pole").sample(np.random.default_rng(3), 5)
    text = markdown(People(Population("cart_pole", drawn)), Settings(population="a", out="b"), rows, "page")
    assert "python -m envs.populate cart_pole --num_agents 5 --seed 3 --out a" in text


def test_cells_know_what_they_were_made_for(monkeypatch):
    settings = parse_settings("--population a --out b --seeds 3,4 --budgets 1,2,9,50".split(), show=False)
    names = [(cell.name, cell.num_policies, cell.seed) for cell in cells_of(settings, 50)]
    assert ("rmdp_k9", 9, 4) in names and ("per_agent", 50, 3) in names and ("single", 1, 3) in names
    assert len(names) == 2 * (6 + 2)  # a budget of 1 or of n is there already
    cell = cells_of(settings, 50)[0]
    made_for = identity(cell, settings, people())
    assert made_for != identity(cell, settings, people(7))
    monkeypatch.setitem(RL2, "cart_pole", RL2["cart_pole"] | {"max_iters": 7})
    assert cell.method == "rl2" and made_for != identity(cell, settings, people())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--out x", "--population: missing"),
        ("--population /nowhere.npz --out OUT", "no population at /nowhere.npz"),
        ("--population P --out OUT --methods rl3", "--methods rl3: 'rl3' is unknown"),
        ("--population P --out OUT --seeds a", "--seeds a: give whole numbers"),
        ("--population P --out OUT --planned 9", "--planned 9: more than --episodes"),
    ],
)
def test_mistakes_end_with_one_line(tmp_path, flags, said):
    path = population(tmp_path)
    words = [{"P": str(path), "OUT": str(tmp_path / "out")}.get(word, word) for word in flags.split()]
    done = command(1, "evaluate", "compare", *words)
    assert done.code == 2, done.output
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("force,length\n1,2\n3\n", "3: 1 values for 2 parameters"),
        ("force,length\n1,x\n", "2:2: 'x' is no number"),
        ("force,force\n1,2\n", "give a header of different names"),
        ("force,length\n", "and a row for each agent"),
        ("force,length\n1,-2\n", "length of task 0 is -2"),
        ("force,width\n1,2\n", "it takes ['force', 'length']"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, content, said):
    from envs import EnvError, populate

    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(EnvError) as caught:
        out = str(tmp_path / "p.npz")
        populate.main(["cart_pole", "--table", str(tmp_path / "t.csv"), "--out", out])
    assert said in str(caught.value)
    assert not (tmp_path / "p.npz").exists()
