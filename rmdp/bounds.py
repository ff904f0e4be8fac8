"""The highest welfare that k policies can reach: what learned figures are compared with."""

from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from common.errors import UserError

# The best known walks of resource gathering, one a policy: up, down, left, right from home until home again.
WALKS = {
    1: "UUUULLDDDDRUUURRURDDLDRDLL",
    2: "ULUURRURDDDDLL URULUULLDDDDRR",
    3: "UUULDDDR URUUURDDDDLL UUUULLDDDDRR",
    5: "ULLDRR URURDDLL UUULDDDR UUUULLDDDDRR UUUURRDLDDDL",
    10: "RL ULDR ULLDRR URRDLL UULDDR UURRDDLL UUURDDDL UUULLDDDRR UUUULLDDDDRR UUUURRDDDDLL",
    25: "D LR RL UD LLRR RRLL ULRD URLD UUDD ULLRRD URRLLD UULRDD UURLDD UUUDDD UULLRRDD UURRLLDD UUULRDDD "
    "UUURLDDD UUUUDDDD UUULLRRDDD UUURRLLDDD UUUULRDDDD UUUURLDDDD UUUULLRRDDDD UUUURRLLDDDD",
}
CELLS_AT_DISTANCE = np.array([1, 3, 5, 5, 5, 4, 2])  # from home, in moves
LENGTHS = np.array([1, *range(2, 28, 2)])  # of useful walks, in steps
DISTANCE = np.arange(len(CELLS_AT_DISTANCE))


def walk_returns(walks: str) -> np.ndarray:
    """What each of the 25 agents gets, x100, if it has the best of `walks`.

    Walks are as in `WALKS`: each ends at home, and may bump the wall only there and then.
    """
    moves = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
    best = np.zeros((5, 5))
    for walk in walks.split():
        row, column = np.clip(np.cumsum([(4, 2), *(moves[move] for move in walk)], axis=0), 0, 4).T
        best[row, column] = np.maximum(best[row, column], 100 - len(walk))
    return best.ravel()


def walk_welfare(walks: str) -> float:
    """What the 25 agents get on average, x100, if each has the best of `walks`."""
    return float(walk_returns(walks).mean())


def known_walk_welfare(num_policies: int) -> float:
    """The welfare, x100, of the best known walks, for the paper's numbers of policies (`WALKS`).

    It is the optimum for 1, 2, 3, 5 and 25 policies, where `walk_bound` is the same; for 10 policies the
    optimum lies between 92.32, this figure, and the bound, 92.40.
    """
    if num_policies not in WALKS:
        raise UserError(f"no walks are stored for {num_policies} policies; choose one of {list(WALKS)}")
    return walk_welfare(WALKS[num_policies])


def walk_bound(num_policies: int) -> float:
    """A welfare, x100, that no `num_policies` walks of resource gathering exceed.

    It is the best that walks could do if the limits of `most_value` were the only ones.
    """
    value = np.broadcast_to(100.0 - LENGTHS[:, None], (len(LENGTHS), len(DISTANCE)))
    best = most_value(num_policies, value)
    assert best is not None  # serving nobody is allowed
    return round(best) / 25


def most_value(num_policies: int, value: np.ndarray, serve_all: bool = False) -> float | None:
    """The most that `num_policies` walks could add up to, all cells together, within a few limits.

    `value [lengths, distances]` is what a cell brings that a walk of `LENGTHS` serves; -inf: it may not.
    None if the walks cannot serve all cells, where they must.

    Bumping the wall on the way only costs time, so a useful walk has an even length t, or t = 1 for home
    alone. It is d moves from home only at times from d to t - d, and only at times that are odd or even as d
    is. So it meets no more cells of distance d and more, odd, even or both, than there are such times. No
    walk need be longer than 26 steps, which suffice for all cells.
    """
    if num_policies < 1:
        raise UserError(f"num_policies is {num_policies}; give a whole number of at least 1")
    # Unknowns: the number of walks of each length, and how many cells of each distance these serve.
    size = (len(LENGTHS), 1 + len(DISTANCE))
    rows, limits = [np.zeros(size)], [num_policies]
    rows[0][:, 0] = 1
    for d in DISTANCE:
        rows.append(np.zeros(size))
        rows[-1][:, 1 + d] = 1
        limits.append(CELLS_AT_DISTANCE[d])
    lowest = np.full(len(limits), -np.inf)
    if serve_all:
        lowest[1:] = CELLS_AT_DISTANCE
    for walk, t in enumerate(LENGTHS):
        for d in DISTANCE:
            times = np.arange(d, t + 1 - max(d, 1))  # without the last, at home, which was its first cell
            for kinds in ((0,), (1,), (0, 1)):
                rows.append(np.zeros(size))
                rows[-1][walk, 0] = -np.isin(times % 2, kinds).sum()
                rows[-1][walk, 1:] = (DISTANCE >= d) & np.isin(DISTANCE % 2, kinds)
                limits.append(0)
    lowest = np.append(lowest, np.full(len(limits) - len(lowest), -np.inf))
    reward, most = np.zeros(size), np.full(size, 25.0)
    reward[:, 1:] = np.where(np.isfinite(value), value, 0)
    most[:, 1:] = np.where(np.isfinite(value), 25, 0)
    best = milp(
        -reward.ravel(),
        constraints=LinearConstraint(np.array(rows).reshape(len(rows), -1), lowest, limits),
        integrality=np.ones(reward.size),
        bounds=Bounds(0, most.ravel()),
        options={"mip_rel_gap": 0},
    )
    return -best.fun if best.success else None


def speed_optimum(targets: Any, num_policies: int, half_width: float) -> float:
    """The highest mean over agents of max_j 100 * max(0, 1 - |v_j - target| / half_width), over speeds v [k].

    Exact for constant speeds. Each speed is best for a stretch of the sorted targets; its reward there is
    piecewise linear in the speed and bends downwards at targets only, so the best speeds are targets.
    """
    if num_policies < 1 or half_width <= 0 or len(targets) == 0:
        raise UserError("speed_optimum: give targets, at least 1 policy and a half_width above 0")
    target = np.sort(np.asarray(targets, np.float64))
    n = len(target)
    reward = np.clip(1 - np.abs(target[:, None] - target) / half_width, 0, None)  # [speed, agent]
    until = np.pad(reward.cumsum(axis=1), ((0, 0), (1, 0)))  # [speed, i]: to agents 0..i-1
    # Of two neighbouring speeds a < b, a is better for agents below the middle and b for those above.
    middle = np.searchsorted(target, (target[:, None] + target) / 2)
    a, b = np.arange(n)[:, None], np.arange(n)
    between = until[a, middle] - until[a, a] + until[b, b] - until[b, middle]  # [a, b]: to agents a..b-1
    between[a >= b] = -np.inf
    best = until[b, b]  # to agents 0..b-1 when b is the last speed so far
    for _ in range(min(num_policies, n) - 1):
        best = np.maximum(best, (best[:, None] + between).max(axis=0))
    return float(100 * (best + until[:, n] - until[b, b]).max() / n)
