"""Glucose and insulin of N patients: the UVA/Padova model of 2008 as simglucose has it."""

from typing import Any

import numpy as np

from envs.protocols import Parameters

MINUTES = 5  # of a control step
EATING_RATE = 5.0  # g/min
PMOL_PER_UNIT = 6000.0
ABSORPTION = {"published": 1.0, "corrected": 1000.0}  # by what eaten grams are added to mg in the stomach
EATING_SUBSTEPS = {"published": 1, "corrected": 8}  # of a minute: emptying is steep when a meal begins
BRAIN, EXCRETION, THRESHOLD, BIOAVAILABLE, LIVER = 1.0, 0.0005, 339.0, 0.9, 1.5  # the same for everybody
OTHER_CLEARANCE = 0.4  # of insulin outside the liver, as a share of m2


def basal_rate(p: Parameters) -> np.ndarray:
    """The rate [n] in U/min under which patients with parameters `p` rest."""
    # The liver clears a share of what it is given and returns the rest.
    per_plasma = (1 + OTHER_CLEARANCE - 1 / (1 + LIVER)) * p["m2"]
    return per_plasma * p["Ib"] * p["Vi"] * p["BW"] / PMOL_PER_UNIT


class Physiology:
    """State [13, N] float64 and its steps of a minute, by the classical Runge-Kutta method.

    Equations, states and units are those of simglucose 0.2.2, `patient/t1dpatient.py` (Dalla Man et al. 2007,
    Kovatchev et al. 2009): 0, 1 stomach, solid and liquid (mg); 2 gut (mg); 3, 4 glucose in plasma and
    tissue (mg/kg); 5, 9 insulin in plasma and liver (pmol/kg); 6, 7, 8 insulin action and its delayed signals
    (pmol/l); 10, 11 insulin under the skin (pmol/kg); 12 glucose under the skin (mg/kg), which sensors read.

    At rest, under the basal rate, all derivatives are zero; k1, Vm0, kp1, the basal rate and the state at
    rest follow from that. `absorption="published"` adds the grams eaten to the milligrams in the stomach, as
    the version does on which all published results rest, so that the stomach empties at its full rate;
    "corrected" converts them. Steps keep within 0.002 mg/dl of an adaptive integrator over a day.
    """

    def __init__(self, p: Parameters, absorption: str):
        self.substeps, self.mg_per_g = EATING_SUBSTEPS[absorption], ABSORPTION[absorption]
        n = len(p["BW"])
        plasma, glucose = p["Ib"] * p["Vi"], p["Gb"] * p["Vg"]
        clearance, liver_rate = (1 + OTHER_CLEARANCE) * p["m2"], (1 + LIVER) * p["m1"]
        self.basal = basal_rate(p)
        basal = self.basal * PMOL_PER_UNIT / p["BW"]
        skin = basal / (p["ka1"] + p["kd"])
        free = p["EGPb"] - BRAIN - EXCRETION * np.maximum(glucose - THRESHOLD, 0)
        k1 = (free + p["k2"] * p["Gtb"]) / glucose
        self.rest = np.zeros((13, n))
        self.rest[[3, 12]], self.rest[4], self.rest[5] = glucose, p["Gtb"], plasma
        self.rest[[7, 8]], self.rest[9] = p["Ib"], p["m2"] * plasma / liver_rate
        self.rest[10], self.rest[11] = skin, p["kd"] * skin / p["ka2"]
        zero = np.zeros(n)
        rates = [-p["kmax"], zero, -p["kabs"], -k1, -p["k2"], -clearance, -p["p2u"], -p["ki"], -p["ki"]]
        rates += [-liver_rate, -(p["ka1"] + p["kd"]), -p["ka2"], -p["ksc"]]
        self.rows = {  # arrays [..., N] that belong to the patients
            "decay": np.stack(rates),
            "k1": k1,
            "appearance": BIOAVAILABLE * p["kabs"] / p["BW"],
            "Vm0": free * (p["Km0"] + p["Gtb"]) / p["Gtb"],
            "kp1": p["EGPb"] + p["kp2"] * glucose + p["kp3"] * p["Ib"],
            "half": (p["kmax"] - p["kmin"]) / 2,
            "full": 2.5 / (1 - p["b"]),
            "full_at_b": 2.5 * p["b"] / (1 - p["b"]),
            "empty": 2.5 / p["d"],
            "per_kg": PMOL_PER_UNIT / p["BW"],
            **{key: p[key] for key in ("kmax", "k2", "m1", "m2", "ka1", "ka2", "p2u", "ki", "kd", "ksc")},
            **{key: p[key] for key in ("kp2", "kp3", "Vmx", "Km0", "Ib", "Vi", "Vg")},
        }
        self.state = self.rest.copy()
        # Grams to come, of the last bite and since the meal began, mg in the stomach before; and of `slopes`.
        names = ("queue", "bite", "eaten", "before", "steep", "flat", "swing")
        self.meal = {name: np.zeros(n) for name in names}
        self.work = [np.empty((13, n)) for _ in range(3)]
        self.scratch = np.empty((3, n))

    @property
    def glucose(self) -> np.ndarray:
        """Glucose under the skin `[N]`, mg/dl."""
        return self.state[12] / self.rows["Vg"]

    def minute(self, grams: Any, dose: np.ndarray) -> None:
        """Announce meals of `grams` [N] (or None) and go on for a minute, under doses [N] in U/min."""
        insulin = dose * self.rows["per_kg"]
        eating = self.eat(grams)
        if self.substeps > 1 and eating.size:
            some = self.take(eating)
            for _ in range(self.substeps):
                some.integrate(insulin[eating], 1 / self.substeps)
            self.integrate(insulin, 1.0)
            self.state[:, eating] = some.state
        else:
            self.integrate(insulin, 1.0)

    def eat(self, grams: Any) -> np.ndarray:
        """Take a bite of a minute from what was announced; numbers of the patients who eat."""
        meal = self.meal
        if grams is not None:
            meal["queue"] += grams
        elif not meal["bite"].any() and not meal["queue"].any():
            return np.zeros(0, np.int64)
        bite = np.minimum(meal["queue"], EATING_RATE)
        meal["queue"] -= bite
        begins = (bite > 0) & (meal["bite"] <= 0)
        meal["before"][begins] = self.state[0][begins] + self.state[1][begins]
        meal["eaten"][begins] = 0
        meal["eaten"] += bite
        meal["bite"] = bite
        size = meal["before"] + self.mg_per_g * meal["eaten"]  # of the meal, mg
        ever = size > 0
        share = np.where(ever, 1 / np.where(ever, size, 1), 0)
        meal["steep"], meal["flat"] = self.rows["full"] * share, self.rows["empty"] * share
        meal["swing"] = np.where(ever, self.rows["half"], 0)
        return np.flatnonzero(bite)

    def integrate(self, insulin: np.ndarray, minutes: float) -> None:
        """One Runge-Kutta step under a constant dose `insulin` [N] in pmol/kg/min."""
        x, (slope, total, point) = self.state, self.work
        self.slopes(x, insulin, total)
        np.multiply(total, minutes / 2, out=point)
        point += x
        for length in (minutes / 2, minutes):
            self.slopes(point, insulin, slope)
            np.multiply(slope, length, out=point)
            point += x
            slope *= 2
            total += slope
        self.slopes(point, insulin, slope)
        total += slope
        total *= minutes / 6
        x += total

    def slopes(self, x: np.ndarray, insulin: np.ndarray, out: np.ndarray) -> None:
        """Derivatives of states [13, N] per minute."""
        r, meal, (a, b, c) = self.rows, self.meal, self.scratch
        np.multiply(r["decay"], x, out=out)
        # Emptying of the stomach: kmax + half * (tanh(full * (q / D - b)) - tanh(empty * (q / D - d))).
        np.add(x[0], x[1], out=a)
        np.multiply(meal["steep"], a, out=b)
        b -= r["full_at_b"]
        np.tanh(b, out=b)
        np.multiply(meal["flat"], a, out=c)
        c -= 2.5
        np.tanh(c, out=c)
        b -= c
        b *= meal["swing"]
        b += r["kmax"]
        b *= x[1]
        np.multiply(r["kmax"], x[0], out=out[1])
        out[1] -= b
        out[2] += b
        np.multiply(meal["bite"], 1000.0, out=a)
        out[0] += a
        # Production, appearance, what the brain takes, excretion, exchange with tissue.
        np.multiply(r["kp2"], x[3], out=a)
        np.subtract(r["kp1"], a, out=a)
        np.multiply(r["kp3"], x[8], out=b)
        a -= b
        np.maximum(a, 0, out=a)
        out[3] += a
        np.multiply(r["appearance"], x[2], out=a)
        out[3] += a
        np.subtract(x[3], THRESHOLD, out=a)
        np.maximum(a, 0, out=a)
        a *= EXCRETION
        a += BRAIN
        out[3] -= a
        np.multiply(r["k2"], x[4], out=a)
        out[3] += a
        np.multiply(r["k1"], x[3], out=a)
        out[4] += a
        # Utilisation in tissue.
        np.multiply(r["Vmx"], x[6], out=a)
        a += r["Vm0"]
        a *= x[4]
        np.add(r["Km0"], x[4], out=b)
        a /= b
        out[4] -= a
        # Insulin: from under the skin to plasma and liver, and its signals.
        np.multiply(r["m1"], x[9], out=a)
        np.multiply(r["ka1"], x[10], out=b)
        a += b
        np.multiply(r["ka2"], x[11], out=b)
        a += b
        out[5] += a
        np.divide(x[5], r["Vi"], out=a)
        np.subtract(a, r["Ib"], out=b)
        b *= r["p2u"]
        out[6] += b
        a *= r["ki"]
        out[7] += a
        np.multiply(r["ki"], x[7], out=a)
        out[8] += a
        np.multiply(r["m2"], x[5], out=a)
        out[9] += a
        out[10] += insulin
        np.multiply(r["kd"], x[10], out=a)
        out[11] += a
        np.multiply(r["ksc"], x[3], out=a)
        out[12] += a
        # The reference lets no amount of glucose move any more that has fallen below zero.
        if min(x[3].min(initial=0), x[4].min(initial=0), x[12].min(initial=0)) < 0:
            out[[3, 4, 12]] *= x[[3, 4, 12]] >= 0

    def take(self, index: np.ndarray) -> "Physiology":
        """A copy of the patients `index`."""
        part = object.__new__(Physiology)
        part.substeps, part.mg_per_g = self.substeps, self.mg_per_g
        part.basal, part.rest, part.state = self.basal[index], self.rest[:, index], self.state[:, index]
        part.rows = {key: values[..., index] for key, values in self.rows.items()}
        part.meal = {key: values[index] for key, values in self.meal.items()}
        part.work = [np.empty((13, len(index))) for _ in range(3)]
        part.scratch = np.empty((3, len(index)))
        return part

    def put(self, index: np.ndarray, part: "Physiology", rows: np.ndarray) -> None:
        """Let the patients `index` go on from where `rows` of `part` are."""
        self.state[:, index] = part.state[:, rows]
        for key, values in self.meal.items():
            values[index] = part.meal[key][rows]
