"""A tiny run of each system, of which every test of its contract is given what it needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.runs import checkpoint
from envs import Problem
from mpi_utils.comm import Comm
from tests.contract.cases import CASES, Case
from tests.helpers import runs
from tests.helpers.launch import command
from train import SYSTEMS, make_learner

TRAINED = 2  # iterations of the stored run


@dataclass
class Run:
    """A stored run of a system, and how to make its learner anew."""

    case: Case
    folder: Path
    config: Any
    problem: Problem

    def new(self) -> Any:
        """A learner that has not learnt yet."""
        return make_learner(self.case.system, self.config, Comm())

    def trained(self) -> Any:
        """A learner as the run left it."""
        learner = self.new()
        learner.load_state_dict(checkpoint.load(self.folder / f"step_{TRAINED:08d}")[1])
        return learner

    @property
    def agents(self) -> np.ndarray | None:
        """Numbers of all agents; None where every task is drawn anew."""
        return np.arange(self.problem.num_agents) if self.problem.num_agents else None

    def actor(self) -> Any:
        """The actor of the trained learner."""
        return self.trained().actor(self.agents, **self.case.options)

    def env(self, num: int = 0) -> Any:
        """`num` environments (0: one an agent), the same at every call."""
        rng, family = np.random.default_rng(3), self.problem.family
        num = num or self.problem.num_agents or 5
        parameters = self.problem.sample(rng, num) if self.agents is None else None
        parameters = (
            self.problem.rows(np.arange(num) % len(self.agents)) if parameters is None else parameters
        )
        return family.make_vec(parameters, np.random.default_rng(4))


@pytest.fixture(scope="session", params=CASES)
def run(request, tmp_path_factory) -> Run:
    """The stored run of each case."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp("contract")
    more = [*case.flags, "--max_iters", str(TRAINED)]
    done = command(1, "train", *runs.flags(case.system, folder, "run", *more))
    assert done.code == 0, done.output
    config = runs.settings(case.system, *more)
    return Run(case, folder / "run", config, SYSTEMS[case.system].make_problem(config, Comm()))
