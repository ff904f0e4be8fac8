"""What an off-policy evaluation prints and draws."""

from pathlib import Path

from common.evaluation import Row
from common.plots import figure, save
from persim.off_policy.verdict import in_words

SHOWN = 20  # agents that are printed
COLOURS = {"better": "C2", "worse": "C3", "unknown": "C7"}


def show(rows: list[Row]) -> None:
    """Print a line for each agent, then its verdict in words, and how many there are of each."""
    own = [r for r in rows if "agent" in r]
    names = list(dict.fromkeys(r["agent"] for r in own))
    found = {(r["metric"], r["agent"]): r for r in own}
    more = [m for m in ("fitted_q", "importance", "effective_episodes") if (m, names[0]) in found]
    heads = ["logged", "value", "from", "to", "no data", *(m.replace("_", " ") for m in more), "verdict"]
    widths = [max(11, len(head) + 2) for head in heads]
    print(f"{'agent':16s}" + "".join(f"{head:>{width}s}" for head, width in zip(heads, widths, strict=True)))
    for name in names[:SHOWN]:
        value, gain, unlike = (found[metric, name] for metric in ("value", "gain", "unlike"))
        numbers = [found["logged_return", name]["mean"], value["mean"], value["low"], value["high"]]
        cells = [f"{number:.4g}" for number in numbers] + [f"{100 * unlike['mean']:.3g} %"]
        others = [found[m, name]["mean"] for m in more]
        cells += ["-" if other is None else f"{other:.4g}" for other in others] + [gain["verdict"]]
        print(f"{name:16s}" + "".join(f"{c:>{width}s}" for c, width in zip(cells, widths, strict=True)))
    for name in names[:SHOWN]:
        gain, unlike = found["gain", name], found["unlike", name]
        print(f"{name}: {in_words(gain['verdict'], (gain['low'], gain['high']), unlike['mean'])}")
    if len(names) > SHOWN:
        print(f"and {len(names) - SHOWN} more, in the rows")
    counts = {r["verdict"]: int(r["mean"]) for r in rows if r["metric"] == "agents"}
    print(f"of {len(names)} agents: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


def plot(rows: list[Row], path: str | Path, title: str) -> None:
    """Draw the interval of each agent, in the colour of its verdict, beside what was logged."""
    own = {
        metric: [r for r in rows if r["metric"] == metric and "agent" in r] for metric in ("value", "gain")
    }
    logged = [r["mean"] for r in rows if r["metric"] == "logged_return" and "agent" in r]
    order = sorted(range(len(logged)), key=lambda a: own["value"][a]["mean"])
    drawn = figure(7, 4)
    axes = drawn.subplots()
    for verdict, colour in COLOURS.items():
        places = [i for i, a in enumerate(order) if own["gain"][a]["verdict"] == verdict]
        values = [own["value"][order[i]] for i in places]
        reach = [[r["mean"] - r["low"] for r in values], [r["high"] - r["mean"] for r in values]]
        means = [r["mean"] for r in values]
        axes.errorbar(places, means, reach, fmt="o", markersize=3, color=colour, label=verdict)
    axes.scatter(range(len(order)), [logged[a] for a in order], marker="_", color="black", label="logged")
    axes.set(xlabel="agents, by the value of the policy", ylabel="return", title=title)
    axes.legend(fontsize=8)
    save(drawn, path)
