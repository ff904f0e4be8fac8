"""The tables of a sweep, with numbers made by hand."""

import pytest

from experiments.sweep import draw
from experiments.tables import entries, not_worse, read_rows, write_csv

BEST = [10.0, 14.0, 11.0, 17.0]  # seeds differ more than methods do: only a paired test can tell them apart


def below(*differences):
    return {str(seed): value - d for seed, (value, d) in enumerate(zip(BEST, differences, strict=True))}


def test_the_paired_one_sided_test_decides_what_is_bold():
    # Differences 1 - s, 1 + s, 1 - s, 1 + s have t = sqrt(3) / s; at 3 degrees of freedom and p = 0.01 the
    # one-sided critical value is 4.541 (two-sided 5.841), so that s = 0.3814 divides.
    s, r = 0.37, 0.39
    values = {
        ("best",): below(0, 0, 0, 0),
        ("worse",): below(1 - s, 1 + s, 1 - s, 1 + s),
        ("unclear",): below(1 - r, 1 + r, 1 - r, 1 + r),
        ("far but noisy",): below(9, 1, 0, 0),
        ("always a little worse",): below(0.01, 0.01, 0.01, 0.01),
        ("equal",): below(0, 0, 0, 0),
    }
    assert not_worse(values) == {("best",), ("unclear",), ("far but noisy",), ("equal",)}


def test_no_test_without_pairs():
    assert not_worse({("a",): {"0": 2.0}, ("b",): {"0": 1.0}}) == set()
    assert not_worse({("a",): {"0": 2.0, "1": 3.0}}) == set(), "alone there is nothing to compare"
    apart = {("a",): {"0": 2.0, "1": 2.0}, ("b",): {"1": 1.0, "2": 1.0}}
    assert not_worse(apart) == {("a",)}


def test_what_an_entry_says():
    def rows(*means):
        return [{"seed": str(seed), "mean": str(mean)} for seed, mean in enumerate(means)]

    # mean 3, standard deviation 2, hence 2 / sqrt(3) = 1.15
    assert entries({("a",): rows(1, 3, 5), ("b",): rows(-40)}) == {
        ("a",): "**3.00 ± 1.15**",
        ("b",): "-40.00 ± - (1 of 3 seeds)",
    }
    assert entries({(): [{"mean": "7.5"}]}) == {(): "7.50 ± -"}


def write(path, columns, lines):
    write_csv(path, [dict(zip(columns, line, strict=True)) for line in lines], columns)


@pytest.fixture
def out(tmp_path):
    """Two environments, two algorithms, two budgets, two seeds; rows of other methods and metrics between."""
    rows, curves = [], []
    for environment, base in (("ant", 0.0), ("hopper", 50.0)):
        for algorithm, better in (("random", 0.0), ("em", 5.0)):
            for k in (10, 2):
                for seed in (0, 1):
                    run = [environment, algorithm, k, seed]
                    welfare = base + better + k + seed
                    rows.append([*run, algorithm, "social_welfare", welfare, 0.5, 20])
                    rows.append([*run, "ideal", "social_welfare", 99.0, None, 1])
                    rows.append([*run, algorithm, "training_welfare", welfare / 10, None, 1])
                    curves += [[*run, i, 100 * i, i / 60, welfare * i] for i in (1, 2, 3)]
    fields = ["environment", "algorithm", "num_policies", "seed"]
    write(tmp_path / "table.csv", [*fields, "method", "metric", "mean", "se", "n"], rows)
    write(tmp_path / "curves.csv", [*fields, "iteration", "env_steps", "minutes", "return"], curves)
    return tmp_path


def test_algorithms_in_columns_budgets_in_rows_environments_apart(out):
    draw(out)
    main, training = (out / "table.md").read_text().split("## training_welfare")
    ant, hopper = main.split("### hopper")
    assert "| num_policies | random | em |" in ant
    # All differences are exactly 5: em is better at any level, and random is not bold.
    assert "| 2 | 2.50 ± 0.50 | **7.50 ± 0.50** |\n| 10 | 10.50 ± 0.50 | **15.50 ± 0.50** |" in ant
    assert "| 2 | 52.50 ± 0.50 | **57.50 ± 0.50** |" in hopper and "t-test" in hopper
    assert "| 10 | 1.05 ± 0.05 | **1.55 ± 0.05** |" in training and "99" not in main + training


def test_figures_of_budgets_and_of_learning(out, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "experiments.figures.curves_figure", lambda path, curves, **labels: drawn.update({path.name: curves})
    )
    draw(out)
    assert drawn.keys() == {
        *("num_policies_ant.png", "num_policies_hopper.png"),
        *(f"curves_{environment}_{k}.png" for environment in ("ant", "hopper") for k in (2, 10)),
    }
    x, mean, se = drawn["num_policies_hopper.png"]["em"]
    assert list(x) == [2, 10] and list(mean) == [57.5, 65.5] and list(se) == pytest.approx([0.5, 0.5])
    x, mean, se = drawn["curves_ant_2.png"]["random"]
    assert list(x) == [100, 200, 300] and list(mean) == [2.5, 5.0, 7.5]
    assert list(se) == pytest.approx([0.5, 1.0, 1.5])


def test_another_metric(out):
    draw(out, "training_welfare")
    assert "social_welfare" not in (out / "table.md").read_text()


def test_rows_come_back_sorted(tmp_path):
    header = ["algorithm", "seed", "method", "metric", "mean", "se", "n"]
    rows = [[a, s, "m", "return", 1 / 3, None, 1] for a in ("em", "cluster") for s in (10, 9)]
    write(tmp_path / "table.csv", header, rows)
    fields, back = read_rows(tmp_path / "table.csv", "method")
    assert fields == ["algorithm", "seed"]
    assert [(row["algorithm"], row["seed"]) for row in back] == [
        *(("em", "9"), ("em", "10")),
        *(("cluster", "9"), ("cluster", "10")),
    ]
    assert back[0]["mean"] == "0.3333333" and back[0]["se"] == ""
