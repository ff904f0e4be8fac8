"""Intervals by hand, and sentences that say no more than the figures do."""

import numpy as np
import pytest

from comparison.conclusions import ONE_SEED, difference, sentences
from comparison.tables import rows_of


def result(name, seed, returns, steps=0):
    returns = np.asarray(returns, float)
    figures = {"mean": returns.mean(), "worst_decile": np.sort(returns)[: -(-len(returns) // 10)].mean()}
    costs = {"train_steps": 10, "new_agent_steps": steps, "policies": 1, "seconds": 1.0}
    return {"name": name, "seed": seed, "returns": returns.tolist(), **figures, **costs}


def test_a_difference_by_hand():
    gaps = np.array([[1.0, 3.0], [2.0, 6.0]])  # [seeds, agents]; of seeds 2 and 4, of agents 1.5 and 4.5
    found = [result("rmdp", s, gaps[s] + 5) for s in (0, 1)] + [result("single", s, [5, 5]) for s in (1, 0)]
    gap = difference(found, "rmdp", "single")
    # Variances of the mean: 2 / 2 over seeds, 4.5 / 2 over agents; degrees of freedom 3.25^2 / (1 + 2.25^2).
    assert gap.mean == 3.0
    freedom = 3.25**2 / (1 + 2.25**2)
    from scipy.stats import t

    assert gap.high - gap.mean == pytest.approx(t.ppf(0.975, freedom) * 3.25**0.5)
    assert gap.low == pytest.approx(2 * gap.mean - gap.high) and not gap.told_apart
    back = difference(found, "single", "rmdp")
    assert (back.mean, back.low, back.high) == pytest.approx((-gap.mean, -gap.high, -gap.low))
    worst = difference(found, "rmdp", "single", worst=True)
    assert worst.mean == 1.5 and worst.high - 1.5 == pytest.approx(t.ppf(0.975, 1) * 0.5)
    assert difference(found[:1] + found[2:], "rmdp", "single") is None


def test_intervals_contain_the_truth_as_often_as_they_say():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        seeds, agents = rng.normal(0, 1, (3, 1)), rng.normal(0, 3, (1, 20))
        gaps = 2 + seeds + agents + rng.normal(0, 1, (3, 20))
        found = [result("rmdp", s, gaps[s]) for s in range(3)] + [
            result("single", s, np.zeros(20)) for s in range(3)
        ]
        gap = difference(found, "rmdp", "single")
        inside += gap.low <= 2 <= gap.high
    assert 0.93 * 400 <= inside


def population(single, rmdp, rl2, seeds=3, steps=(0, 30, 90)):
    found = []
    for seed in range(seeds):
        noise = np.linspace(-0.1, 0.1, 10) + 0.05 * seed
        for (name, mean), asked in zip(
            (("single", single), ("rmdp", rmdp), ("rl2", rl2)), steps, strict=True
        ):
            found.append(result(name, seed, mean + (1 if name == "single" else -1) * noise, asked))
    return found, rows_of(found)


def test_one_seed_concludes_nothing():
    assert sentences(*population(1, 5, 9, seeds=1)) == [ONE_SEED]


def test_sentences_of_clear_differences():
    said = " ".join(sentences(*population(1, 9, 5)))
    assert "highest return with r-MDP (9.0" in said or "highest return with r-MDP (8.9" in said
    assert "RL², which comes next, is below it by 4" in said and "95 % interval" in said
    assert "Personalising pays: r-MDP returns more than one policy for all by" in said
    assert "r-MDP asks for 30 steps of a new agent" in said and "RL² asks" not in said
    said = " ".join(sentences(*population(9, 5, 1)))
    assert "Personalising does not pay: one policy for all returns more than r-MDP" in said
    assert "one policy for all asks for no steps" in said


def test_what_cannot_be_told_is_not_said():
    said = " ".join(sentences(*population(5, 5.01, 1, steps=(600, 0, 90))))
    assert "cannot be told apart" in said and "Whether personalising pays is open" in said
    assert "Of these, r-MDP asks for the fewest steps of a new agent: no" in said  # and not RL²
    assert "worst tenth" not in said
    said = " ".join(sentences(*population(5, 5.01, 5, steps=(90, 90, 18432))))
    assert "one policy for all and r-MDP asks" in said or "r-MDP and one policy for all asks" in said


@pytest.mark.parametrize(("by_group", "rmdp"), [(5, 9), (9, 5), (5, 5.01)])
def test_known_groups_beside_those_of_rmdp(by_group, rmdp):
    found, _ = population(1, rmdp, by_group)
    for one in found:
        one["name"] = {"rl2": "per_group"}.get(one["name"], one["name"])
        one["policies"] = {"rmdp": 4, "per_group": 3}.get(one["name"], 1)
        if one["name"] == "rmdp":
            one["returns"] = [value + 0.1 * (one["seed"] - 1) for value in one["returns"]]
    said = " ".join(sentences(found, rows_of(found)))
    four, three = "r-MDP (4 policies), which is told of no groups", "ne policy per group (3 policies)"
    assert (f"{four}, returns more than o{three} by 4.0 (95 %" in said) == (rmdp == 9)
    assert (f"O{three} returns more than {four}, by 4.0 (95 %" in said) == (rmdp == 5)
    assert ("told of no groups" in said) == (rmdp != 5.01)


def test_fewer_methods_than_two():
    found, rows = population(1, 2, 3)
    assert "nothing to compare" in sentences(found[:1], rows[:1])[0]
    assert sentences([], []) == ["Nothing is finished yet."]
