"""Each mutant of the engine is found by a short run of the suite; the engine itself is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, Mutant, hunted, mutate

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1500)]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name: str, tmp_path: Path) -> None:
    """The suite is able to fail: it finds this wrong variant."""
    mutate(name, MUTANTS[name], tmp_path)
    found, said = hunted(tmp_path, MUTANTS[name])
    assert found, said


@pytest.mark.parametrize("part", ["short writes", "model", "places", "forgotten pages"])
def test_the_engine_itself_is_not_taken_for_a_mutant(part: str, tmp_path: Path) -> None:
    """The hunt finds nothing in the engine as it is: what it finds in a mutant is the mutant's.

    Of the other parts the proof makes larger runs.
    """
    itself = Mutant(part, ())
    mutate("the engine itself", itself, tmp_path)
    found, said = hunted(tmp_path, itself, alone=True)
    assert not found, said
    assert "nothing found" in said
