"""The sabotages of the safety code fit the code, and at night each of them fails a test."""

import pytest

from tests.helpers.launch import ROOT
from tests.helpers.mutants import MUTANTS, main, mutated
from tests.helpers.source import functions


def test_every_mutant_fits_the_code():
    for mutant in MUTANTS:
        compile(mutated(mutant), mutant.file, "exec")
        path, _, test = mutant.tests.partition("::")
        assert not test or test.split("[")[0] in functions(ROOT / path), mutant.name


@pytest.mark.nightly
@pytest.mark.mpi
@pytest.mark.timeout(1800)
def test_every_mutant_is_killed(promise, capsys):
    survivors = main([])
    with capsys.disabled():
        print(capsys.readouterr().out)
    with promise("mutants of the safety code", len(MUTANTS)) as trial:
        trial.failures = len(survivors)
        assert not survivors
