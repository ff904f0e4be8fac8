"""The sabotages of tests/mutants.py fit the code; `python -m tests.mutants` shows that tests see them."""

import ast

import pytest

from tests.launch import ROOT
from tests.mutants import MUTANTS, main, mutated


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_fits_the_code(mutant):
    text = mutated(mutant)
    ast.parse(text)
    path, _, rest = mutant.tests.partition("::")
    assert (ROOT / path).exists() and rest.split("[")[0] in (ROOT / path).read_text()


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_every_mutant_is_killed(promise, capsys):
    survivors = main([])
    with capsys.disabled():
        print(capsys.readouterr().out)
    promise("mutants of the safety code", len(MUTANTS), survivors)
    assert survivors == 0
