"""The statistics of stores as Prometheus reads them."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import weakref
from concurrent.futures import ThreadPoolExecutor
from errno import EIO
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, start_http_server
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from aquipu import Always, OsManaged, RecordTooLargeError, Store
from aquipu.contrib import prometheus as contrib
from aquipu.contrib.prometheus import StoreCollector, exported
from tests.callers import held, tick
from tests.disk import FailingDisk
from tests.remote.daemon.served import until

pytestmark = pytest.mark.asyncio


@pytest.fixture
def registry() -> CollectorRegistry:
    """One without anything else."""
    return CollectorRegistry()


def samples(text: str) -> dict[str, float]:
    """Every sample by its name and labels, as they are written."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_what_is_shown(tmp_path: Path, registry: CollectorRegistry) -> None:
    """Each number of the statistics has its metric, in base units, with the store as a label."""
    async with Store.open(tmp_path, sync_policy=Always(), max_record_bytes=10) as store:
        await store.append_many([b"x" * 10] * 3, relations=("user:7",))
        await store.append(b"x")
        with pytest.raises(RecordTooLargeError):
            await store.append(bytes(11))
        while store.statistics().free_bytes is None:
            await tick()
        with exported(store, "audit", registry):
            seen, shown = store.statistics(), samples(generate_latest(registry).decode())
    expected = {
        'aquipu_appends_total{store="audit"}': 4,
        'aquipu_appended_bytes_total{store="audit"}': 31,
        'aquipu_commits_total{store="audit"}': 2,
        'aquipu_syncs_total{store="audit"}': seen.syncs,
        'aquipu_errors_total{reason="RecordTooLargeError",store="audit"}': 1,
        'aquipu_errors_total{reason="StoreFailedError",store="audit"}': 0,
        'aquipu_cancelled_waiters_total{store="audit"}': 0,
        'aquipu_append_seconds_count{store="audit"}': 4,
        'aquipu_append_seconds_bucket{le="+Inf",store="audit"}': 4,
        'aquipu_append_seconds_sum{store="audit"}': pytest.approx(seen.append_seconds.sum),
        'aquipu_commit_records_bucket{le="1.0",store="audit"}': 1,
        'aquipu_commit_records_bucket{le="2.0",store="audit"}': 1,
        'aquipu_commit_records_bucket{le="4.0",store="audit"}': 2,
        'aquipu_commit_records_sum{store="audit"}': 4,
        'aquipu_sync_seconds_count{store="audit"}': seen.syncs,
        'aquipu_buffer_records{store="audit"}': 0,
        'aquipu_buffer_bytes{store="audit"}': 0,
        'aquipu_waiting_callers{store="audit"}': 0,
        'aquipu_first_sequence{store="audit"}': 0,
        'aquipu_next_sequence{store="audit"}': 4,
        'aquipu_synced_sequence{store="audit"}': 4,
        'aquipu_oldest_unsynced_seconds{store="audit"}': 0,
        'aquipu_segments{store="audit"}': 1,
        'aquipu_disk_bytes{store="audit"}': seen.disk_bytes,
        'aquipu_state{state="open",store="audit"}': 1,
        'aquipu_state{state="failed",store="audit"}': 0,
    }
    assert {name: shown[name] for name in expected} == expected
    assert shown['aquipu_free_bytes{store="audit"}'] > 0
    assert shown['aquipu_append_seconds_bucket{le="0.0001",store="audit"}'] >= 0


async def test_every_metric_is_in_the_table(tmp_path: Path, registry: CollectorRegistry) -> None:
    """The table of the module names what is shown, with its type, and nothing else."""
    async with Store.open(tmp_path) as store:
        with exported(store, registry=registry):
            families = list(text_string_to_metric_families(generate_latest(registry).decode()))
            assert generate_openmetrics(registry).endswith(b"# EOF\n")  # type: ignore[no-untyped-call]
    shown = {
        (f"{family.name}_total" if family.type == "counter" else family.name, family.type)
        for family in families
    }
    rows = re.findall(
        r"^(aquipu_\w+) +(counter|gauge|histogram) ", contrib.__doc__ or "", re.MULTILINE
    )
    assert shown == set(rows)
    assert all(family.documentation.endswith(".") for family in families)


async def test_a_scrape_while_the_disk_hangs(tmp_path: Path, registry: CollectorRegistry) -> None:
    """It is answered over HTTP, by the thread of the exporter, and shows what hangs."""
    disk = FailingDisk()
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        async with Store.open(tmp_path, disk=disk, sync_policy=Always()) as store:
            with exported(store, "audit", registry), held(disk, "sync") as call:
                append = asyncio.ensure_future(store.append(b"x"))
                await call.reached()

                def scrape() -> str:
                    with urlopen(
                        f"http://127.0.0.1:{server.server_port}/metrics", timeout=20
                    ) as answer:
                        text: bytes = answer.read()
                        return text.decode()

                shown = samples(await asyncio.to_thread(scrape))
                assert not append.done()
                call.release()
                await append
        assert shown['aquipu_under_way_seconds{store="audit"}'] > 0
        assert shown['aquipu_buffer_records{store="audit"}'] == 1
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_scrape_while_the_loop_hangs(tmp_path: Path, registry: CollectorRegistry) -> None:
    """The loop of the store has no part in it."""
    async with Store.open(tmp_path) as store:
        with exported(store, "audit", registry):
            with ThreadPoolExecutor(1) as pool:
                text = pool.submit(generate_latest, registry).result(20)
    assert b'aquipu_appends_total{store="audit"} 0.0' in text


async def test_several_stores(tmp_path: Path, registry: CollectorRegistry) -> None:
    """Each has its label, its path without a name; they come and go one by one."""
    async with Store.open(tmp_path / "a") as a, Store.open(tmp_path / "b") as b:
        await b.append(b"x")
        with exported(a, registry=registry):
            with exported(b, "b", registry):
                shown = samples(generate_latest(registry).decode())
                assert shown[f'aquipu_appends_total{{store="{a.path}"}}'] == 0
                assert shown['aquipu_appends_total{store="b"}'] == 1
            shown = samples(generate_latest(registry).decode())
            assert {label for label in shown if label.startswith("aquipu_appends")} == {
                f'aquipu_appends_total{{store="{a.path}"}}'
            }
        assert samples(generate_latest(registry).decode()) == {}


async def test_two_stores_of_one_name(tmp_path: Path, registry: CollectorRegistry) -> None:
    """The second one is refused, and the first is still shown; the same one may be added again."""
    collector = StoreCollector(registry)
    async with Store.open(tmp_path / "a") as a, Store.open(tmp_path / "b") as b:
        collector.add(a, "one")
        collector.add(a, "one")
        with pytest.raises(ValueError, match="shown as 'one' already"):
            collector.add(b, "one")
        assert 'aquipu_state{state="open",store="one"}' in samples(
            generate_latest(registry).decode()
        )
    shown = samples(generate_latest(registry).decode())
    assert shown['aquipu_state{state="closed",store="one"}'] == 1


async def test_a_registry_with_two_collectors(registry: CollectorRegistry) -> None:
    """The second one is refused: no metric may be there twice."""
    StoreCollector(registry)
    with pytest.raises(ValueError, match="uplicated"):
        StoreCollector(registry)


async def test_a_store_that_nobody_holds(tmp_path: Path) -> None:
    """It is not kept alive by being shown."""
    collector = StoreCollector(None)
    store = await Store.open(tmp_path)
    collector.add(store)
    await store.aclose()
    gone = weakref.ref(store)
    del store
    # once the thread and the loop have let go of it
    await until(lambda: gc.collect() >= 0 and gone() is None)
    assert all(not family.samples for family in collector.collect())


async def test_a_system_that_does_not_tell(tmp_path: Path, registry: CollectorRegistry) -> None:
    """Free space that is not known is not shown as 0."""
    disk = FailingDisk()
    disk.fail("free", EIO, forever=True)
    async with Store.open(tmp_path, disk=disk, sync_policy=OsManaged()) as store:
        with exported(store, "audit", registry):
            shown = samples(generate_latest(registry).decode())
    assert 'aquipu_free_bytes{store="audit"}' not in shown
    assert 'aquipu_disk_bytes{store="audit"}' in shown


async def test_a_path_that_is_no_text(tmp_path: Path, registry: CollectorRegistry) -> None:
    """Its bytes are shown as text, for a label is text; and so are a line end and a quote, as
    Prometheus has them.
    """
    for name, shown in ((b"a\xffb", r"a\\xffb"), (b'a\n"b', r"a\n\"b")):
        async with Store.open(tmp_path / os.fsdecode(name)) as store:
            with exported(store, registry=registry):
                assert (
                    f'aquipu_next_sequence{{store="{tmp_path}/{shown}"}} 0.0'
                    in generate_latest(registry).decode()
                )


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
async def test_several_processes_in_one_scrape(
    tmp_path: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In that mode nobody asks the registry that all share, so a store that would not be shown is
    refused at once; another registry is asked by whoever made it.
    """
    monkeypatch.setenv(name, str(tmp_path))
    async with Store.open(tmp_path / "store") as store:
        for refused in (exported(store), exported(store, registry=REGISTRY)):
            with pytest.raises(RuntimeError, match="multiprocess mode"), refused:
                pass
        with pytest.raises(RuntimeError, match="aquipu serve --metrics"):
            StoreCollector()
        StoreCollector(None).add(store)
        with exported(store, "audit", registry):
            assert 'aquipu_next_sequence{store="audit"}' in samples(
                generate_latest(registry).decode()
            )
