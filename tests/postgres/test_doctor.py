"""What is found of a server that weakens the promise."""

from __future__ import annotations

import json

import pytest

from aquipu.postgres.care.doctor import Seen, Standby, findings_in
from aquipu.postgres.schema.versions import VERSION
from tests.cli.support import run
from tests.postgres.server import Server

SOUND = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": "ANY 1 (one, two)",
    "data_checksums": "on",
    "server_version_num": "150001",
    "server_encoding": "UTF8",
}
STANDBYS = [Standby("one", "streaming", "quorum", 0), Standby("two", "streaming", "quorum", 10)]


def seen(standbys: list[Standby] = STANDBYS, version: int = VERSION, **settings: str) -> Seen:
    return Seen(SOUND | settings, False, version, standbys)


def test_a_server_that_is_set_up_well() -> None:
    """There is nothing to remark."""
    assert findings_in(seen()) == []


@pytest.mark.parametrize(
    ("found", "setting", "weight"),
    [
        (seen(fsync="off"), "fsync", "danger"),
        (seen(full_page_writes="off"), "full_page_writes", "danger"),
        (seen(synchronous_commit="off"), "synchronous_commit", "remark"),
        (seen(data_checksums="off"), "data_checksums", "remark"),
        (seen([], synchronous_standby_names=""), "synchronous_standby_names", "remark"),
        (seen([], synchronous_standby_names="one"), "synchronous_standby_names", "danger"),
        (seen(STANDBYS[:1]), "synchronous_standby_names", "remark"),
        (seen([*STANDBYS, Standby("far", "streaming", "async", 1 << 30)]), "replica lag", "remark"),
        (seen(version=0), "tables", "remark"),
        (seen(version=VERSION + 1), "tables", "remark"),
        (seen(server_version_num="130001"), "server_version", "danger"),
        (seen(server_encoding="LATIN1"), "server_encoding", "danger"),
        (seen()._replace(is_standby=True), "server", "remark"),
    ],
)
def test_each_setting_that_weakens_the_promise(found: Seen, setting: str, weight: str) -> None:
    """It is named, with what it means and what to do."""
    (finding,) = findings_in(found)
    assert (finding.setting, finding.weight) == (setting, weight)
    assert finding.means
    assert finding.remedy


def test_dangers_come_first() -> None:
    """Whatever else there is."""
    weights = [
        finding.weight for finding in findings_in(seen([], fsync="off", data_checksums="off"))
    ]
    assert weights == ["danger", "danger", "remark"]


def test_the_command(server: Server) -> None:
    """doctor with the address of a server asks it."""
    done = run("doctor", "--json", server.url)
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert {finding["setting"] for finding in found["findings"]} == {
        "synchronous_standby_names",
        "data_checksums",
    }
    assert b"remark: synchronous_standby_names = empty" in run("doctor", server.url).stdout
    assert run("doctor", "--quick", server.url).returncode == 2
