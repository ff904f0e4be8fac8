"""The highest Nash welfare, and the highest utility of the worst-off agent, that k walks can reach.

Of resource gathering with an agent in each cell; an agent's utility is its return over that of the shortest
walk through its cell. `rmdp.bounds` has the same for the mean.
"""

import functools

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

from common.errors import UserError
from envs.resource_gathering import HOME, NUM_CELLS, SIZE, ResourceGathering
from rmdp.bounds import DISTANCE, LENGTHS, most_value, walk_returns
from rmdp.welfare import Welfare, parse_welfare

# The best walks for each number of policies, as in `rmdp.bounds.WALKS`.
FAIR_WALKS = {
    "nash": {
        1: "UUUULLDDDDRUUURRURDDLDRDLL",
        2: "ULUURULLDDDDRR URULURURDDDDLL",
        3: "UUURDDDL ULUUULDDDDRR UUUURRDDDDLL",
        5: "URRDLL UUURDDDL ULULDDRR UUULULDDDRDR UUUURRDDLDDL",
    },
    "worst": {
        1: "UUUULLDDDDRUUURRURDDLDRDLL",
        2: "LURULURRDDDL LLUUUURRRRDDDDLL",
        3: "LLURRRDL UURUURDDDDLL ULUURULLDDDDRR",
        5: "URRDLL UUURDDDL ULULDDRR UUUULLDRDDDR UUUURRDDDDLL",
    },
}
LONGEST = 20  # steps of the walks that `useful_walks` lists
BEST_LENGTH = np.maximum(2 * DISTANCE, 1)  # of the walk that serves a cell of a distance alone


def walk_utilities(walks: str) -> np.ndarray:
    """The utility of each of the 25 agents if it has the best of `walks`."""
    _, best = ResourceGathering().return_range({"cell": np.arange(NUM_CELLS)})
    return walk_returns(walks) / (100 * best)


def fair_optimum(num_policies: int, welfare: str) -> float:
    """The highest `welfare`, nash or worst, of 1, 2, 3 or 5 walks: that of `FAIR_WALKS`.

    `nash_bound` and `worst_optimum` prove that there is nothing above it.
    """
    known = FAIR_WALKS.get(welfare, {})
    if num_policies not in known:
        raise UserError(f"no walks are stored for the welfare {welfare} of {num_policies} policies")
    chosen = parse_welfare(welfare)
    assert isinstance(chosen, Welfare)
    return chosen.value(walk_utilities(known[num_policies]))


def utility(length: np.ndarray) -> np.ndarray:
    """Utilities `[lengths, distances]` of walks of `length [lengths]`; -inf where none is that short."""
    found = (100 - length[:, None]) / (100 - BEST_LENGTH)
    return np.where(found > 1, -np.inf, found)


def nash_bound(num_policies: int) -> float:
    """A Nash welfare that no walks exceed, by the limits of `rmdp.bounds.most_value`."""
    value = utility(LENGTHS)
    value[value > 0] = np.log(value[value > 0])
    best = most_value(num_policies, value, serve_all=True)
    assert best is not None  # a walk of 26 steps serves all
    return float(np.exp(best / NUM_CELLS))


def worst_optimum(num_policies: int) -> tuple[float, str]:
    """The highest utility that the worst-off agent can have, and walks that reach it; exact.

    Utilities are of finitely many sizes. From the highest on down, the first is taken for which walks exist:
    those within the limits of `most_value` are looked for among all useful walks, where these are listed.
    Takes seconds.
    """
    sizes = utility(LENGTHS)
    for least in np.unique(sizes[np.isfinite(sizes)])[::-1]:
        allowed = sizes > least - 1e-9
        if most_value(num_policies, np.where(allowed, 0.0, -np.inf), serve_all=True) is None:
            continue
        if num_policies == 1:  # one walk through all cells has 26 steps
            return float(least), FAIR_WALKS["worst"][1]
        if walks := cover(num_policies, allowed):
            return float(least), walks
        if LENGTHS[allowed.any(1)].max() > LONGEST:
            raise UserError(f"worst_optimum: it may take walks of over {LONGEST} steps, which are not listed")
    raise AssertionError("one walk serves all agents")


def cover(num_policies: int, allowed: np.ndarray) -> str:
    """Walks that serve every cell by one of a length `allowed [lengths, distances]`; "" if there are none.

    Of up to `LONGEST` steps.
    """
    lengths = LENGTHS[allowed.any(1) & (LENGTHS <= LONGEST)]
    listed = [(t, mask, walk) for t in lengths for mask, walk in useful_walks(t).items()]
    served = lil_matrix((1 + NUM_CELLS, len(listed)))
    served[0] = 1
    for column, (t, mask, _) in enumerate(listed):
        for cell in range(NUM_CELLS):
            distance = abs(cell // SIZE - HOME[0]) + abs(cell % SIZE - HOME[1])
            served[1 + cell, column] = mask >> cell & 1 and allowed[LENGTHS == t, distance][0]
    found = milp(
        np.zeros(len(listed)),
        constraints=LinearConstraint(
            served.tocsr(),
            np.append(0, np.ones(NUM_CELLS)),
            np.append(num_policies, np.full(NUM_CELLS, np.inf)),
        ),
        integrality=np.ones(len(listed)),
        bounds=Bounds(0, 1),
    )
    return " ".join(listed[i][2] for i in np.flatnonzero(found.x > 0.5)) if found.success else ""


@functools.cache
def useful_walks(length: int) -> dict[int, str]:
    """The walks of `length` that no other passes all cells of: {cells passed, as bits: the walk}.

    One is a way out and a way back, each of half its length, that end in the same cell and avoid home.
    """
    home = 1 << HOME[0] * SIZE + HOME[1]
    if length == 1:
        return {home: "D"}
    ends: dict[int, list[tuple[int, str]]] = {}
    for (cell, passed), way in ways(length // 2).items():
        ends.setdefault(cell, []).append((passed, way))
    back = str.maketrans("UDLR", "DURL")
    walks: dict[int, str] = {}
    for found in ends.values():
        masks = np.array([mask for mask, _ in found])
        for i, (mask, way) in enumerate(found):
            for both, j in zip(*np.unique(masks[i:] | mask | home, return_index=True), strict=True):
                walks.setdefault(int(both), way + found[i + j][1][::-1].translate(back))
    kept = np.empty(0, np.int64)
    for mask in sorted(walks, key=int.bit_count, reverse=True):
        if not ((kept & mask) == mask).any():
            kept = np.append(kept, mask)
    return {int(mask): walks[int(mask)] for mask in kept}


@functools.cache
def ways(steps: int) -> dict[tuple[int, int], str]:
    """Ways from home that do not come back: {(cell, cells passed as bits): moves}, one for each."""
    if steps == 0:
        return {(HOME[0] * SIZE + HOME[1], 0): ""}
    found: dict[tuple[int, int], str] = {}
    for (cell, passed), way in ways(steps - 1).items():
        row, column = divmod(cell, SIZE)
        for move, down, right in (("U", -1, 0), ("D", 1, 0), ("L", 0, -1), ("R", 0, 1)):
            to = (row + down, column + right)
            if min(to) >= 0 and max(to) < SIZE and to != HOME:
                number = to[0] * SIZE + to[1]
                found.setdefault((number, passed | 1 << number), way + move)
    return found
