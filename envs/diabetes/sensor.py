"""The error of a glucose sensor that reads every five minutes."""

import numpy as np

LOWEST, HIGHEST = 39.0, 600.0  # readings, mg/dl
KEPT, XI, LAMBDA, GAMMA, DELTA = 0.7, -5.47, 15.9574, -0.5444, 1.6898
KNOTS, READINGS = 10, 30  # new knots of a block, 15 minutes apart; readings of a block


def spline() -> np.ndarray:
    """What a cubic not-a-knot spline through 11 knots reads between them, [30, 11], first at a third."""

    def basis(t: np.ndarray) -> np.ndarray:
        inner = np.maximum(t[:, None] - np.arange(2, KNOTS - 1), 0) ** 3
        return np.concatenate([t[:, None] ** np.arange(4), inner], axis=1)

    knots = np.arange(KNOTS + 1.0)
    return basis(np.arange(1, READINGS + 1) / 3) @ np.linalg.inv(basis(knots))


SPLINE = spline()


def errors(noise: np.ndarray, fresh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors [30, n] in mg/dl of a block's readings, and the noise [n] that the next block begins with.

    Breton & Kovatchev 2008 as in simglucose's `sensor/noise_gen.py`: from `noise` [n], e <- 0.7 (e + n) every
    15 minutes with the normal numbers `fresh` [10, n]; the error is xi + lambda sinh((e - gamma) / delta), in
    between by cubic interpolation within the block. The first noise is normal.
    """
    knots = [noise]
    for draw in fresh:
        knots.append(KEPT * (knots[-1] + draw))
    return SPLINE @ (XI + LAMBDA * np.sinh((np.stack(knots) - GAMMA) / DELTA)), knots[-1]
