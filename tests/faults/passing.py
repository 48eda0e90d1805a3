"""Trouble that passes: a roll is refused for a moment, at each of its calls, and a disk is full for
one write.

The store goes on, and whenever the power is cut after that, it opens with all that was SYNCED. A
retention that makes room on the full disk lets go of no more than its rule says, and never of what
is held.

And a disk that has not one free byte: a killed store with a torn tail is opened on it, its cursors
are saved, it is held and purged, each time when something else has taken what had become free.
Nothing is refused; and whenever the power is cut, each cursor is where it was saved last or was
being saved, and no byte of the torn tail is lost.
"""

from __future__ import annotations

from contextlib import suppress
from errno import EMFILE, ENOSPC
from random import Random

from aquipu import Always, AquipuError, Retention, Store, StoreFullError, StoreUnavailableError
from aquipu.local.format.names import Reserve
from tests.faults.crashes import PATH, small_strides
from tests.faults.inline import run_inline
from tests.faults.tally import Tally
from tests.faults.volatile_disk import Fault, Files, Rename, Replay, VolatileDisk
from tests.support import engine_of

_REFUSED = frozenset({"create", "rename", "remove", "sync_directory", "truncate"})
_WRITES = frozenset({"write", "write_synced"})
_RECORD = 1500
_SEGMENT = 4096
_KEPT = 4 * _SEGMENT
_RECORDS = 20
_LARGEST = (
    _SEGMENT + 2 * _RECORD
)  # a segment, with the record that made it full and one that came while it could not roll


class _Trap:
    """The nth of these calls fails, once."""

    def __init__(self, calls: frozenset[str], nth: int, error: int) -> None:
        self._calls, self._left, self._error = calls, nth, error
        self.failed: str | None = None

    def __call__(self, call: str, count: int) -> Fault | None:
        if call not in self._calls or self.failed is not None:
            return None
        self._left -= 1
        if self._left:
            return None
        self.failed = call
        return Fault(self._error, 0.5 if call in _WRITES else 0.0)


async def _execute(
    disk: VolatileDisk, trap: _Trap, retention: Retention | None, tally: Tally
) -> list[tuple[int, int]]:
    """One run; how far it was SYNCED at which moments."""
    promises = []
    options = {"sync_policy": Always(), "max_segment_bytes": _SEGMENT, "retention": retention}
    store = await Store.open(PATH, lock_timeout=0, disk=disk, **options)  # type: ignore[arg-type]
    await store.append_many([b"a", b"b", b"c"])
    promises.append((len(disk.log), 3))
    await store.hold("held", 3)
    disk.trap = trap
    for number in range(_RECORDS):
        if number == _RECORDS // 2:
            with suppress(StoreUnavailableError):
                await store.release("held")
        try:
            await store.append(bytes(_RECORD))
        except StoreFullError:
            tally.counts["commits refused"] += 1
            continue
        promises.append((len(disk.log), store.next_sequence))
        _judge_kept(store, number < _RECORDS // 2, trap, tally)
    disk.trap = None  # what a close does is another matter: see `errors`
    await store.aclose()
    return promises


def _judge_kept(store: Store, held: bool, trap: _Trap, tally: Tally) -> None:
    if held and store.first_sequence > 3:
        tally.violated(f"after a failed {trap.failed} what was held is purged")
    if store.first_sequence and store.statistics().disk_bytes <= _KEPT - _LARGEST:
        tally.violated(f"after a failed {trap.failed} more is purged than the retention says")


async def _judge_cuts(
    disk: VolatileDisk, promises: list[tuple[int, int]], why: str, random: Random, tally: Tally
) -> None:
    """The power is cut whenever a segment has got its name, and at some other moments."""
    replay = Replay(disk)
    for moment, event in enumerate(disk.log, 1):
        replay.take(event)
        names_a_segment = isinstance(event, Rename) and (event.new or "").endswith(".segment")
        if not names_a_segment and random.random() > 0.01:
            continue
        synced = max((until for when, until in promises if when <= moment), default=0)
        for files in replay.states(random, 2 if names_a_segment else 1):
            tally.counts["power cuts"] += 1
            try:
                async with Store.open(PATH, lock_timeout=0, disk=VolatileDisk(files)) as store:
                    if store.next_sequence < synced:
                        tally.violated(
                            f"{why}: {synced - store.next_sequence} SYNCED records are missing"
                        )
            except AquipuError as error:
                tally.violated(f"{why}: refused what a power cut may leave: {error!r}")


async def _every(
    calls: frozenset[str],
    error: int,
    retention: Retention | None,
    step: int,
    seed: int,
    tally: Tally,
) -> None:
    random = Random(seed)
    nth = 1 + random.randrange(step)
    while len(tally.violations) < 20:
        disk, trap = VolatileDisk(), _Trap(calls, nth, error)
        try:
            promises = await _execute(disk, trap, retention, tally)
        except AquipuError as failed:
            tally.violated(f"a {trap.failed} that was refused is the end of the store: {failed!r}")
            promises = []
        if trap.failed is None:
            return
        tally.counts[f"refused: {trap.failed}"] += 1
        await _judge_cuts(
            disk, promises, f"the {nth}th of these calls, {trap.failed}, was refused", random, tally
        )
        nth += step


class _Saves:
    """Where a cursor may be: each save, from and until which moment of the log it was under way."""

    def __init__(self) -> None:
        self._saves: list[tuple[int, int, str, int]] = []

    def note(self, began: int, ended: int, name: str, sequence: int) -> None:
        self._saves.append((began, ended, name, sequence))

    def allowed(self, name: str, moment: int) -> set[int | None]:
        found: set[int | None] = {None}
        for began, ended, its_name, sequence in self._saves:
            if its_name == name and ended <= moment:
                found = {sequence}
            elif its_name == name and began <= moment:
                found.add(sequence)
        return found


async def _killed(random: Random) -> tuple[Files, bytes]:
    """A store that was killed, with reserves and a cursor, and a torn tail: its files, the tail."""
    disk = VolatileDisk()
    async with Store.open(
        PATH, lock_timeout=0, disk=disk, sync_policy=Always(), max_segment_bytes=_SEGMENT
    ) as store:
        for _ in range(12):
            await store.append(bytes(_RECORD))
        await store.cursor("old").save(1)
        replay = Replay(disk)
        for event in disk.log:
            replay.take(event)
        _, files, *_ = replay.states(random, 0)
        end = engine_of(store)._journal._files.active.contents.end
    last = max(path for path in files if path.endswith(".segment"))
    tail = random.randbytes(2 * Reserve.TAIL.bytes) + b"."
    # not what is left without its zeros: a check may end with one
    return files | {last: files[last][:end] + tail}, tail


async def _full_disk(files: Files, tally: Tally) -> tuple[VolatileDisk, _Saves]:
    disk, saves = VolatileDisk(files), _Saves()
    saves.note(0, 0, "old", 1)
    disk.room = 0
    store = await Store.open(
        PATH, lock_timeout=0, disk=disk, sync_policy=Always(), max_segment_bytes=_SEGMENT
    )

    async def save(name: str, sequence: int) -> None:
        began, disk.room = len(disk.log), 0
        await store.cursor(name).save(sequence)
        saves.note(began, len(disk.log), name, sequence)

    try:
        for sequence in range(2, 6):
            await save("old", sequence)
            await save("new", sequence)
        disk.room = 0
        await store.hold("held", 6)
        disk.room = 0
        await store.purge(before=8)
        if not 0 < store.first_sequence <= 6:
            tally.violated(f"on a full disk a purge before 8 begins at {store.first_sequence}")
        tally.counts["full disks"] += 1
    finally:
        disk.room = None
        await store.aclose()
    return disk, saves


async def _judge_full(
    disk: VolatileDisk, saves: _Saves, tail: bytes, random: Random, tally: Tally
) -> None:
    replay = Replay(disk)
    for moment, event in enumerate(disk.log, 1):
        replay.take(event)
        for files in replay.states(random, 1):
            tally.counts["power cuts on a full disk"] += 1
            left = VolatileDisk(files)
            try:
                async with Store.open(PATH, lock_timeout=0, disk=left) as store:
                    for name in ("old", "new"):
                        found = await store.cursor(name).load()
                        if found not in saves.allowed(name, moment):
                            tally.violated(f"full disk: the cursor {name!r} is at {found}")
            except AquipuError as error:
                tally.violated(f"full disk: refused what a power cut may leave: {error!r}")
                continue
            kept = [left.bytes_of(name) for name in left.list(PATH) if ".cut-" in name]
            for start in range(0, len(tail), Reserve.TAIL.bytes // 2):
                piece = tail[start : start + Reserve.TAIL.bytes // 2]
                if all(one[start : start + len(piece)] != piece for one in kept):
                    tally.violated(f"full disk: the torn tail is lost from its byte {start} on")


async def _full(seed: int, tally: Tally) -> None:
    random = Random(seed)
    files, tail = await _killed(random)
    try:
        disk, saves = await _full_disk(files, tally)
    except AquipuError as error:
        tally.violated(f"full disk: refused: {error!r}")
        return
    await _judge_full(disk, saves, tail, random, tally)


def run(seed: int, step: int = 1) -> Tally:
    """Each call of a roll, and each write, or every so many of those."""
    tally = Tally()
    with small_strides():
        run_inline(_full(seed, tally))
        run_inline(_every(_REFUSED, EMFILE, None, 1, seed, tally))
        run_inline(_every(_WRITES, ENOSPC, Retention(max_bytes=_KEPT), step, seed, tally))
    return tally
