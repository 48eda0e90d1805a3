"""The runs: an archive beside a writer at full speed, killed, lost with its machine, and restored.

Each returns what it has counted and measured, and yields no result for what must not be: it raises.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import median
from time import monotonic, sleep
from typing import Any

from aquipu import Always, Archive, OsManaged, Reader, Store
from tests.backups.runs import check
from tests.backups.writer import data_of, writing

MIB = 1024 * 1024
INTERVAL = 1.0
_RESTORE_SECONDS = 2.0  # within which a restore is killed, at most


def command(*arguments: object) -> list[str]:
    """Return the command line of aquipu."""
    return [sys.executable, "-m", "aquipu", *map(str, arguments)]


def archived(store: Path, url: str) -> int:
    """Archive what there is; return one past the last archived record."""
    done = subprocess.run(
        command("archive", store, url, "--json"), check=True, stdout=subprocess.PIPE
    )
    return int(json.loads(done.stdout)["next_sequence"])


def restored(url: str, place: Path) -> dict[str, float]:
    """Restore an archive, check every record, and return what the command says of it."""
    done = subprocess.run(
        command("restore", url, place, "--json"), check=True, stdout=subprocess.PIPE
    )
    found: dict[str, float] = json.loads(done.stdout)
    assert asyncio.run(check(place, int(found["next_sequence"]))) == found["next_sequence"]
    return found


@contextmanager
def carried(store: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have a store carried to its archive meanwhile."""
    follow = command("archive", store, url, "--follow", "--interval", INTERVAL)
    with subprocess.Popen(follow, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def killed(directory: Path, kills: int, segment_bytes: int, seed: int) -> Counter[str]:
    """Kill what carries the store, at random moments; in the end all of it is there."""
    counts: Counter[str] = Counter()
    random, store, url = Random(seed), directory / "store", f"file://{directory}/archive"
    with writing(store, segment_bytes):
        for _ in range(kills):
            with carried(store, url) as process:
                sleep(random.uniform(0.2, 2.0))
                assert process.poll() is None, "it has ended by itself"
                counts["killed"] += 1
    end = archived(store, url)
    subprocess.run(command("archive", "check", url, "--store", store, "--all"), check=True)
    assert restored(url, directory / "copy")["next_sequence"] == end
    counts["records"] = end
    return counts


def lost(
    directory: Path, times: int, segment_bytes: int, seed: int, seconds: tuple[int, int] = (2, 6)
) -> dict[str, float]:
    """Lose the machine at a random moment; return how much at most that has cost."""
    random, worst = Random(seed), 0.0
    for number in range(times):
        place = directory / str(number)
        place.mkdir()
        store, url = place / "store", f"file://{place}/archive"
        writer = [sys.executable, "-m", "tests.backups.writer", str(store), str(segment_bytes), "0"]
        with subprocess.Popen(writer, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            with carried(store, url) as carrier:
                while not (place / "archive" / "entries").exists():
                    assert carrier.poll() is None, "it has ended by itself"
                    sleep(0.01)
                seen = asyncio.run(_watched(store, random.uniform(*seconds)))
            process.kill()
        shutil.rmtree(store)
        reached = restored(url, place / "copy")["next_sequence"]
        assert reached > 0
        ended = seen[-1][0]
        worst = max(worst, ended - max(at for at, following in seen if following <= reached))
        shutil.rmtree(place)
    return {"times": times, "most seconds lost": round(worst, 2)}


async def _watched(store: Path, seconds: float) -> list[tuple[float, int]]:
    """Return how far the log was acknowledged, every few milliseconds."""
    seen, end = [], monotonic() + seconds
    async with Reader.open(store) as reader:
        while monotonic() < end:
            seen.append((monotonic(), reader.next_sequence))
            await asyncio.sleep(0.005)
    return seen


HITS, PLACES = 50, 5


async def _labelled(store: Path, records: int) -> None:
    """Append so many records, of which some have a label, at a few places; and others another."""
    async with Store.open(store, sync_policy=OsManaged()) as log:
        every = records // (2 * PLACES)
        for place in range(2 * PLACES):
            first, label = place * every, ("first", "second")[place % 2]
            for number in range(first, first + HITS // PLACES):
                await log.append(data_of(number), relations=(label,))
            for begin in range(first + HITS // PLACES, first + every, 10_000):
                end = min(begin + 10_000, first + every)
                await log.append_many([data_of(number) for number in range(begin, end)])


async def _found(url: str) -> dict[str, float]:
    async with Reader.open(url) as reader:
        disk = reader._source.disk  # type: ignore[attr-defined]
        found = {"requests to open": disk.bucket.requests}
        for label in ("first", "second"):
            before = disk.bucket.requests
            hits = [record async for record in reader.scan(relation=label)]
            assert len(hits) == HITS
            found[f"for the {label} label"] = disk.bucket.requests - before
        return {**found, "MB kept": round(disk.kept_bytes / 1e6, 1)}


def reads(directory: Path, records: int) -> dict[str, float]:
    """Find the records of two labels in an archive that is not restored."""
    store, url = directory / "store", f"file://{directory}/archive"
    asyncio.run(_labelled(store, records))
    subprocess.run(command("index", store), check=True, stderr=subprocess.DEVNULL)
    archived(store, url)
    return {"records": records, **asyncio.run(_found(url))}


async def _filled(store: Path, records: int) -> None:
    async with Store.open(store, sync_policy=Always(), max_segment_bytes=8 * MIB) as log:
        for first in range(0, records, 10_000):
            await log.append_many([data_of(n) for n in range(first, min(first + 10_000, records))])


def restores(directory: Path, records: int, kills: int, seed: int) -> dict[str, float]:
    """Restore so many records, and again with a restore that is killed so often."""
    random, store, url = Random(seed), directory / "store", f"file://{directory}/archive"
    asyncio.run(_filled(store, records))
    assert archived(store, url) == records
    found = restored(url, directory / "copy")
    shutil.rmtree(directory / "copy")
    for _ in range(kills):
        with subprocess.Popen(
            command("restore", url, directory / "copy"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                assert process.wait(random.uniform(0.2, _RESTORE_SECONDS)) == 0
            except subprocess.TimeoutExpired:
                process.kill()
    assert restored(url, directory / "copy")["next_sequence"] == records
    return {
        "records": records,
        "MB/s": round(found["bytes"] / 1e6 / found["seconds"], 1),
        "killed": kills,
    }


async def _rate(store: Path, archive: Archive | None, seconds: float) -> float:
    """Return how many records a second many callers append, each waiting for its own."""
    async with Store.open(store, archive=archive) as log:
        appended, begin = 0, monotonic()

        async def append() -> None:
            nonlocal appended
            while monotonic() < begin + seconds:
                await log.append(bytes(256))
                appended += 1

        await asyncio.gather(*(append() for _ in range(256)))
        return appended / (monotonic() - begin)


def appends(directory: Path, pairs: int, seconds: float = 3.0) -> dict[str, float]:
    """Compare the rate of appends with an archive, and with one that is away, to that without."""
    away: dict[str, Any] = {"region": "x", "access_key_id": "x", "secret_access_key": "x"}
    elsewhere = tempfile.mkdtemp(dir="/dev/shm")  # another disk than that of the store
    ways: dict[str, Archive | None] = {
        "without": None,
        "with": Archive(f"file://{elsewhere}/archive", interval=INTERVAL),
        "away": Archive("s3://bucket/x", endpoint="http://127.0.0.1:9", **away),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for round_ in range(pairs):
        # in another order each time: what was removed just now still keeps the disk at work
        for way in islice(cycle(ways), round_, round_ + len(ways)):
            store = directory / "store"
            rates[way].append(asyncio.run(_rate(store, ways[way], seconds)))
            shutil.rmtree(store)
            shutil.rmtree(elsewhere, ignore_errors=True)
    rate = {way: median(some) for way, some in rates.items()}
    return {
        "appends/s without": round(rate["without"]),
        "ratio with": round(rate["with"] / rate["without"], 3),
        "ratio while it is away": round(rate["away"] / rate["without"], 3),
    }
