"""Each mutant of the engine is found by a short run of the suite; the engine itself is not."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, Mutant, hunted, mutate

ITSELF = "the engine itself"
_AT_A_TIME = 2  # each hunt is a process that keeps one core busy for half a minute

Hunts = dict[str, Future[tuple[bool, str]]]


@pytest.fixture(scope="module")
def hunts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hunts]:
    """The hunts of the tests that were chosen, in their order."""
    chosen = {item.name.partition("[")[2].removesuffix("]") or ITSELF for item in request.session.items}
    names = [name for name in (*MUTANTS, ITSELF) if name in chosen]
    pool = ThreadPoolExecutor(_AT_A_TIME)
    try:
        yield {name: pool.submit(_hunt, name, tmp_path_factory.mktemp("mutant")) for name in names}
    finally:
        pool.shutdown(cancel_futures=True)


def _hunt(name: str, place: Path) -> tuple[bool, str]:
    mutant = MUTANTS.get(name, Mutant("model", ()))
    mutate(mutant.edits, place)
    return hunted(place, mutant.part)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name: str, hunts: Hunts) -> None:
    """The suite is able to fail: it finds this wrong variant."""
    found, said = hunts[name].result()
    assert found, said


@pytest.mark.timeout(300)
def test_the_engine_itself_is_not_taken_for_a_mutant(hunts: Hunts) -> None:
    """The hunt finds nothing in the engine as it is: what it finds in a mutant is the mutant's."""
    found, said = hunts[ITSELF].result()
    assert not found, said
    assert "nothing found" in said
