"""The real command with tiny settings: every method on the same agents, counted alike, one report."""

import base64
import csv
import functools
import json
import re
import shlex
from html.parser import HTMLParser

import numpy as np
import pytest

import caml
import rl2
import rmdp
from common.errors import UserError
from common.runs.run_folder import read_config
from common.runs.seeding import stream
from comparison import methods
from comparison.config import BUDGETS, METHODS, RL2, Settings, parse_settings
from comparison.experiments import experiments_of
from comparison.problem import Evaluated, evaluate_actor, load_problem, outcome
from comparison.report import html
from comparison.tables import REPORTED, header, markdown, method_csv, plain, rows_of
from comparison.tables import command as command_of
from comparison.training import Training
from envs import Population, make_family
from experiments.grid import attempt
from mpi_utils.comm import Comm
from rl2.fixed_horizon import FixedHorizon
from tests.helpers.launch import command

TINY = "--budget 8000 --behaviour random --episodes 2 --planned 1 --num_policies 2 --budgets 3".split()
TINY += ["--max_episode_len", "10", "--simulator_iters", "2"]


WITHOUT_GROUPS = [name for name in METHODS if name != "per_group"]  # these serve agents that have none
LOAD = {"rl2": rl2.load, "rmdp": rmdp.load, "caml": caml.load}


def population(tmp_path, environment="cart_pole", n=6):
    path = tmp_path / f"{environment}.npz"
    agents = make_family(environment).sample(stream(0, "tasks"), n)
    Population(environment, agents).save(path)
    return path


@pytest.fixture
def problem(tmp_path):
    return load_problem(population(tmp_path))


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
    assert set(rows) == {*WITHOUT_GROUPS, "rmdp_k3"}
    assert done.output.count(": begun") == 2 * 7 and "group" not in done.output
    number = {name: {key: row[key] for key in row} for name, row in rows.items()}
    assert float(number["single"]["new_agent_steps"]) == 0 and float(number["single"]["policies"]) == 1
    assert float(number["per_agent"]["policies"]) == 6 and float(number["persim"]["policies"]) == 0
    each = float(number["per_agent"]["train_steps"]) / 6
    assert float(number["per_agent"]["new_agent_steps"]) == each
    for name in WITHOUT_GROUPS:
        assert float(number[name]["train_steps"]) > 0 and float(number[name]["seconds"]) > 0
        assert 1 <= float(number[name]["worst_decile"]) <= float(number[name]["mean"]) <= 10
        assert int(number[name]["seeds"]) == 2
        assert float(number[name]["train_steps"]) <= 8_000  # the budget
    for name in ("single", "rmdp", "caml", "rl2", "per_agent"):
        assert float(number[name]["train_steps"]) >= 0.6 * 8_000
    assert "PerSim after" in done.output  # which is done sooner
    assert "95 % interval" in done.output or "told apart" in done.output
    for name in ("rl2_seed0", "caml_seed1", "rmdp_k3_seed0", "single_seed0", "per_agent_seed0"):
        system = read_config(out / "runs" / name)["system"]
        actor = LOAD[system](out / "runs" / name)
        actor.reset(6)
        assert actor.act(np.zeros((6, 4), np.float32), None, None).shape == (6,)
    agents = list(csv.DictReader((out / "agents.csv").open(newline="")))
    assert len(agents) == 2 * 7 * 6 and {"force", "length", "return", "policy"} <= agents[0].keys()
    for name in WITHOUT_GROUPS:
        own = [float(row["return"]) for row in agents if row["name"] == name]
        assert np.mean(own) == pytest.approx(float(number[name]["mean"]))
    results = json.loads((out / "table.json").read_text())["experiments"]
    assert len(results) == 14 and all(len(result["returns"]) == 6 for result in results)

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
    redone = json.loads((out / "table.json").read_text())["experiments"]
    for result, other in zip(results, redone, strict=True):  # numbers depend on nothing but settings
        assert result["returns"] == other["returns"] and result["train_steps"] == other["train_steps"]
    page_is_whole((tmp_path / "page.html").read_text(), 7)


@pytest.mark.slow
def test_a_policy_for_each_group(tmp_path):
    path, out = population(tmp_path, "particle", n=7), tmp_path / "out"
    group = Population.load(path).parameters["group"]
    budget = ["--budget", "9000", "--max_episode_len", "10", "--episodes", "2", "--num_policies", "2"]
    flags = [
        "--population",
        path,
        "--methods",
        "single,per_group,rmdp",
        "--budgets",
        "",
        *budget,
        "--out",
        out,
    ]
    done = command(1, "evaluate", "compare", *flags, limit=280)
    assert done.code == 0, done.output
    rows = {row["name"]: row for row in csv.DictReader((out / "table.csv").open(newline=""))}
    assert list(rows) == ["single", "per_group", "rmdp"]
    row, num = rows["per_group"], len(np.unique(group))
    assert 2 < num < 7 and float(row["policies"]) == num and float(row["new_agent_steps"]) == 0
    assert 0.75 * 9000 < float(row["train_steps"]) <= 9000
    _, policy_of = np.unique(group, return_inverse=True)
    agents = list(csv.DictReader((out / "agents.csv").open(newline="")))
    own = [row for row in agents if row["name"] == "per_group"]
    assert [int(row["policy"]) for row in own] == policy_of.tolist()
    assert [int(row["group"]) for row in own] == group.tolist()
    config = read_config(out / "runs" / "per_group_seed0")
    assert (config["algorithm"], config["assign_by"], config["num_policies"]) == ("given", "group", num)
    assert rmdp.load(out / "runs" / "per_group_seed0").policy_of.tolist() == policy_of.tolist()
    page = (out / "comparison.html").read_text()
    assert (
        "3 methods on 7 agents" in page
        and "which no method is given, but for “group” in one policy per group." in page
    )
    assert page.count("<h3>one policy per group</h3>") == 1
    assert f"<td>one policy per group</td><td>{num}</td>" in page  # beside r-MDP's budgets
    assert f"| one policy per group | {float(row['mean']):.1f} |" in (out / "comparison.md").read_text()
    assert "one policy per group" in done.output


def page_is_whole(text, num_methods):
    page = Page(text)
    assert not page.open, "an element stays open"
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object")
        assert tag != "script" or not attributes  # ours, which stands in the page
        for name in ("src", "href"):
            value = attributes.get(name, "data:")
            assert value.startswith("data:"), f"<{tag} {name}={value[:40]}> needs a network"
    named = "http://www.w3.org/2000/svg"  # a name, which nobody looks up
    assert "http" not in re.sub(r'data:[^"]*"', "", text).replace(named, "")
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
    assert {row["name"] for row in rows} == {*WITHOUT_GROUPS, "rmdp_k3"} | (
        {"per_group"} if environment == "particle" else set()
    )
    assert all(np.isfinite(float(row["mean"])) for row in rows)
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


class Pushes:
    """Pushes all poles one way, and keeps the starts that it sees."""

    def __init__(self):
        self.starts = []

    def reset(self, num):
        self.num = num

    def act(self, observation, reward, done, running=None):
        if reward is None:
            self.starts.append(observation.copy())
        return np.full(self.num, len(self.starts) % 2)


def test_starts_are_the_same_whoever_acts(problem):
    actor = Pushes()
    returns = evaluate_actor(problem, actor, 3, seed=4).returns
    for num_episodes, seed in ((3, 4), (2, 4), (3, 5)):
        evaluate_actor(problem, actor, num_episodes, seed)
    first, again, fewer, other = actor.starts
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[:12], fewer)  # fewer episodes are the first of more
    assert (first != other).any()
    assert returns.shape == (6, 3) and 5 < returns.mean() < 15  # pushed one way a pole falls


def test_an_episode_that_ended_has_no_rewards_until_its_time_is_over(problem):
    family = FixedHorizon(problem.family, 30)
    env = family.make_vec(problem.agents, np.random.default_rng(0))
    first, _ = env.reset()
    total, held = np.zeros(6), None
    for t in range(30):
        seen, reward, terminated, truncated, infos = env.step(np.zeros(6, np.int64))
        total += reward
        assert not terminated.any() and truncated.all() == (t == 29)
        if t == 28:
            held = seen.copy()
    np.testing.assert_array_equal(infos["final_obs"], held)  # nobody moves any more
    assert total.max() < 20 and family.steps == total.sum()  # the reward is 1 while a pole stands
    assert (seen != first).any() and np.abs(seen).max() < 0.06  # a fresh start


def test_figures_of_an_outcome(problem, tmp_path):
    returns = np.arange(20.0)[:, None] + np.array([0.0, 2.0])
    told = {"warm (%)": returns * 10, "watts": np.full((20, 2), np.nan)}
    told["watts"][3, 1] = 5
    tested = Evaluated(returns, told)
    curves = {"curve": [(0, Evaluated(returns - 1, {}))], "learning": [(7, tested)]}
    made = outcome(tested, train_steps=7, new_agent_steps=3, policies=2, **curves)
    assert made["mean"] == 10.5 and made["worst_decile"] == 1.5  # of agents 0 and 1
    assert made["measures"] == {"warm (%)": 105, "warm (%), lowest tenth": 15, "watts": 5}
    assert made["curve"] == [{"steps": 0.0, "mean": 9.5, "worst_decile": 0.5}]
    assert made["learning"] == [{"steps": 7.0, "mean": 10.5, "worst_decile": 1.5}]
    result = made | {"name": "single", "seconds": 2.0, "seed": 0}
    rows = rows_of([result, result | {"mean": 12.5}])
    assert rows[0]["mean"] == 11.5 and rows[0]["se_mean"] == pytest.approx(1)
    text = markdown(problem, Settings(population="a", out="b"), rows, "page")
    assert "| one policy for all | 11.5 ± 1.0 | 1.5 ± 0.0 | 7 | 3 | 2 | 2 |" in text
    lines = [line.strip() for line in plain(rows).splitlines()]
    assert lines[2] == REPORTED and lines[3].split() == "method warm (%) warm (%), lowest tenth watts".split()
    assert "| one policy for all | 105.0 ± 0.0 | 15.0 ± 0.0 | 5.0 ± 0.0 |" in text
    old = {name: value for name, value in result.items() if name != "measures"}
    assert REPORTED not in plain(rows_of([old])) and "warm" not in method_csv(rows_of([old, result]))
    days = rows_of([result], steps_per_day=2)
    assert ["steps per new agent", "days per new agent"] == header(days)[4:6]
    assert "| 3 | 1.5 | 2 | 2 |" in markdown(problem, Settings(population="a", out="b"), days, "page")
    table = dict(zip(*csv.reader(method_csv(days).splitlines()), strict=True))
    assert table["new_agent_days"] == "1.5" and table["warm (%), lowest tenth"] == "15.0"
    problem.family.note = "A model's numbers."
    shown = result | {"returns": result["returns"][:6]}
    page = html(problem, Settings(population="a", out="b"), [shown], days, [])
    assert "<em>A model&#x27;s numbers.</em>" in page and REPORTED in page and "<td>105.0</td>" in page
    assert "*A model's numbers.*" in markdown(problem, Settings(population="a", out="b"), rows, "page")
    assert "envs.populate" not in text  # these agents are none that the command draws
    drawn = make_family("cart_pole").sample(np.random.default_rng(3), 5)
    Population("cart_pole", drawn).save(tmp_path / "drawn.npz")
    text = markdown(load_problem(tmp_path / "drawn.npz"), Settings(population="a", out="b"), rows, "page")
    assert "python -m envs.populate cart_pole --num_agents 5 --seed 3 --out a" in text


def test_the_command_that_made_a_page_can_be_given_again():
    settings = parse_settings(["--population", "my agents.npz", "--out", "b", "--budgets", ""], show=False)
    words = shlex.split(command_of(settings))
    assert parse_settings(words[words.index("compare") + 1 :], show=False) == settings


def test_every_method_with_every_seed_is_an_experiment(tmp_path):
    settings = parse_settings("--population a --out b --seeds 3,4 --budgets 1,2,9,50".split(), show=False)
    found, left_out = experiments_of(settings, load_problem(population(tmp_path, n=50)))
    names = [one.name for one in found]
    assert not left_out  # nor is a policy per group said to be: CartPole's agents have none
    assert {"rmdp_k9_seed4", "per_agent_seed3", "single_seed3"} <= set(names)
    assert len(names) == 2 * (6 + 2)  # a budget of 1 or of n is there already
    assert methods.METHODS.keys() == set(METHODS)


def test_a_result_counts_for_what_it_was_made_for(tmp_path, problem, monkeypatch):
    flags = ["--population", "a", "--out", str(tmp_path), "--methods", "rl2"]

    def rl2(problem=problem, *more):
        return experiments_of(parse_settings([*flags, *more], show=False), problem)[0][0]

    monkeypatch.setitem(methods.METHODS, "rl2", lambda training: {"mean": float(training.budget)})
    assert rl2().result() is None
    assert attempt(rl2(), Comm()) and rl2().result()["mean"] == BUDGETS["cart_pole"]
    assert rl2(problem, "--budget", str(BUDGETS["cart_pole"])).result()  # the usual budget, said
    for flags_given in (["--episodes", "6"], ["--budget", "90000"], ["--budget_rule", "recipe"]):
        assert rl2(problem, *flags_given).result() is None
    assert rl2(load_problem(population(tmp_path, n=7))).result() is None
    monkeypatch.setitem(RL2, "cart_pole", RL2["cart_pole"] | {"max_iters": 7})
    assert rl2().result() is None


def test_missing_behaviour_policies_are_no_reason_to_log_random_actions(problem, tmp_path, monkeypatch):
    elsewhere = functools.partial(methods.behaviour.load, folder=tmp_path)
    monkeypatch.setattr(methods.behaviour, "load", elsewhere)
    with pytest.raises(UserError, match="policies of cart_pole"):
        methods.make_log(Training(problem, Settings(), 0, 1))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--out x", "--population: missing"),
        ("--population /nowhere.npz --out OUT", "no population at /nowhere.npz"),
        ("--population P --out OUT --methods rl3", "--methods rl3: 'rl3' is unknown"),
        (
            "--population P --out OUT --methods per_group",
            "--methods per_group: cannot serve cart_pole: its agents have no groups: no parameter of one "
            "number an agent is called 'group'",
        ),
        ("--population P --out OUT --seeds a", "--seeds a: give whole numbers"),
        ("--population P --out OUT --planned 9", "--planned 9: more than --episodes"),
        ("--population P --out OUT --behaviour me", "--behaviour me: is unknown"),
        ("--population P --out OUT --budget 9 --methods rl2", "--budget 9: the least that it can train for"),
        ("--population P --out OUT --budget 9", "no method can serve cart_pole"),
        ("--population P --out OUT --budget 9 --budget_rule recipe", "leave it out with --budget_rule"),
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
        ("\nforce,length\n\n\n1,2\n\n1,x\n", "7:2: 'x' is no number"),
        ("force,length\n1,2\n3,inf\n", "3:2: 'length' is inf, not finite"),
        ("force,length\n nan,2\n", "2:1: 'force' is nan, not finite"),
        ('"force";"length"\n1;2\n', "1: its columns are separated by ';'"),
        ("force\tlength\n1\t2\n", "1: its columns are separated by '\\t'"),
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_in_any_unicode_are_read(tmp_path, encoding):
    from envs import populate

    (tmp_path / "t.csv").write_text("force,length\n7,0.5\n", encoding=encoding)
    populate.main(["cart_pole", "--table", str(tmp_path / "t.csv"), "--out", str(tmp_path / "p.npz")])
    assert Population.load(tmp_path / "p.npz").parameters["force"].tolist() == [7]
