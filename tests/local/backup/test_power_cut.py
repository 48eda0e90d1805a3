"""backup: the power is cut, in the middle of it and at its end."""

from __future__ import annotations

from pathlib import Path
from random import Random
from threading import Event

import pytest

from aquipu.local.backup.backup import Making, Wish
from aquipu.local.format.names import segment_name
from aquipu.local.read.examine import examine, verify
from aquipu.local.write.recovery import recover
from aquipu.record import Record
from tests.faults.volatile_disk import Files, Replay, VolatileDisk
from tests.local.backup.made import at_rest, filled, purged, writing
from tests.support import NOW, STORE_ID, records_in

STORE, BACKUP = "/store", "/backup"


def files_of(path: Path, at: str) -> Files:
    """The files of a directory, as a volatile disk starts with them."""
    return {f"{at}/{file.name}": file.read_bytes() for file in path.iterdir()}


def records_of(files: Files, tmp_path: Path) -> list[Record]:
    """What is in the backup when an opening has mended it; every frame has been checked."""
    disk = VolatileDisk({name: data for name, data in files.items() if name.startswith(BACKUP)})
    if examine(disk, BACKUP) is None:
        return []
    journal, _ = recover(disk, BACKUP, max_segment_bytes=4096, new_store_id=STORE_ID, now=NOW)
    journal.close()
    findings = examine(disk, BACKUP)
    assert findings is not None
    assert list(verify(disk, BACKUP, findings.segments, lambda size: None)) == []
    place = tmp_path / "left"
    place.mkdir(exist_ok=True)
    for file in place.iterdir():
        file.unlink()
    for name in disk.list(BACKUP):
        (place / name).write_bytes(disk.bytes_of(name))
    return records_in(place)


def made_on(disk: VolatileDisk) -> None:
    making = Making(disk, STORE, Wish(BACKUP, False, True), lambda: 0, Event())
    making.prepare()
    making.carry_out(at_rest(disk, STORE))


@pytest.mark.parametrize("is_purged", [False, True])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.proof)])
def test_the_power_is_cut(store: Path, tmp_path: Path, seed: int, is_purged: bool) -> None:
    """At every moment the backup is the earlier one, or more of the log: what is left opens. When
    it has said that it is done, everything is there: also what the store has sealed and purged
    since.
    """
    with writing(store) as journal:
        filled(journal, 7)
    older, whole = files_of(store, STORE), records_in(store)
    with writing(store) as journal:
        if is_purged:
            journal.roll()
            purged(journal, 7)
        filled(journal, 5, first=7)
    newer = files_of(store, STORE)
    whole += [record for record in records_in(store) if record.sequence >= 7]
    assert (len(whole), f"{STORE}/{segment_name(0)}" in newer) == (12, not is_purged)
    random = Random(seed)
    first = VolatileDisk(older)
    made_on(first)
    replay = Replay(first)
    for event in first.log:
        replay.take(event)
    for files in replay.states(random, 3):
        assert records_of(files, tmp_path) == whole[:7]
    begun = {name: data for name, data in files.items() if name.startswith(BACKUP)}
    again = VolatileDisk({**newer, **begun})
    made_on(again)
    replay = Replay(again)
    for event in again.log:
        replay.take(event)
        for files in replay.states(random, 3):
            found = records_of(files, tmp_path)
            assert found == whole[: len(found)]
            assert len(found) >= 7
    for files in replay.states(random, 10):
        assert records_of(files, tmp_path) == whole
