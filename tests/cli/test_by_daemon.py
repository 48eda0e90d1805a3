"""The commands with the address of a daemon in the place of a directory: they ask it, or say that
they cannot.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.served import ended, serving
from tests.cli.support import run, well
from tests.support import data_in, flip, segments_in


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a daemon with an empty store."""
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path) as process:
        yield f"unix:{tmp_path}/socket"
        process.send_signal(signal.SIGTERM)
        ended(process, 0)
    assert sorted(os.listdir(tmp_path)) == ["store"]


def test_records_go_there_and_come_back(address: str, tmp_path: Path) -> None:
    """append, and all that read: the same as with the directory."""
    done = run("append", "--raw", address, "--relation", "user:7", input=b"one\ntwo\n")
    assert (done.returncode, done.stderr) == (0, b"2 records appended, last sequence 1, SYNCED\n")
    assert (
        run("append", "--raw", address, input=b"three").stderr
        == b"1 record appended, last sequence 2, SYNCED\n"
    )
    for command in (
        ("cat",),
        ("cat", "--reverse", "--json"),
        ("find", "user:7"),
        ("tail", "-n", "2"),
        ("relations", "--json"),
        ("export", "--format", "csv"),
        ("export", "--format", "ndjson", "--relation", "user:7"),
    ):
        name, *options = command
        assert well(name, address, *options) == well(name, tmp_path / "store", *options) != b""
    assert well("cat", "--raw", address) == b"one\ntwo\nthree"


def test_many_short_lines(address: str, tmp_path: Path) -> None:
    """More lines at a time than the daemon takes in one commit are several."""
    well("append", "--raw", address, input=b"\n" * 200_000)
    assert well("tail", address, "-n", "1", "--json").startswith(b'{"sequence": 199999, ')


def test_a_backup(address: str, tmp_path: Path) -> None:
    """The daemon makes it, at a path that counts from where the command was given."""
    well("append", "--raw", address, input=b"one\ntwo\n")
    (tmp_path / "away").mkdir()
    os.chdir(tmp_path / "away")
    assert well("backup", address, "copy").startswith(b"2 records, 0 to 1, in ")
    assert data_in(tmp_path / "away" / "copy") == [b"one\n", b"two\n"]
    shutil.rmtree(tmp_path / "away")
    os.chdir(tmp_path)


def test_holds_and_purges(address: str) -> None:
    """They are the daemon's to set, to remove and to do; what is wrong with them is said as for a
    directory.
    """
    well("append", "--raw", address, input=b"one\ntwo\n")
    assert json.loads(well("hold", address, "audit", "1", "--json")) == {"audit": 1}
    assert json.loads(well("hold", address, "all", "--json")) == {"all": 0, "audit": 1}
    assert well("hold", address) == b"0\tall\n1\taudit\n"
    assert run("hold", address, "late", "3").returncode == 2
    well("hold", address, "all", "--release")
    assert run("hold", address, "all", "--release").returncode == 2
    found = json.loads(well("purge", address, "--before", "2", "--dry-run", "--json"))
    assert (found["first_sequence"], found["dry_run"]) == (0, True)
    assert well("purge", address, "--before", "2026-01-01T00:00:00Z").startswith(b"0 segments")


@pytest.mark.parametrize("command", [["index"], ["repair", "--yes"], ["serve", "--socket", "x"]])
def test_commands_that_need_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """They say so, and make nothing of that name."""
    monkeypatch.chdir(tmp_path)
    name, *options = command
    done = run(name, "unix:somewhere", *options)
    assert done.returncode == 2
    assert (
        b"unix:somewhere is a daemon, and this command works on the files of a store" in done.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_info_is_what_the_daemon_says(address: str) -> None:
    """In the same words, and as the same object; what it does not say is left out, or null."""
    well("append", "--raw", address, input=b"one\ntwo\n")
    well("hold", address, "audit", "1")
    info = json.loads(well("info", address, "--json"))
    assert (info["path"], info["records"], info["next_sequence"]) == (address, 2, 2)
    assert (info["segments"], info["holds"], info["store_id"]) == (1, {"audit": 1}, None)
    assert info["writer"] == {"pid": None, "shared": True}
    assert info["first_time"] <= info["last_time"]
    words = well("info", address).decode()
    assert "\nrecords         2\n" in words
    assert "\nsegments        1\n" in words
    assert "store id" not in words


def test_verify_reads_the_files_of_the_daemon(address: str) -> None:
    """It asks where they are; damage is found as it is by the directory."""
    well("append", "--raw", address, input=b"one\ntwo\n")
    verdict = json.loads(well("verify", address, "--json"))
    path = Path(verdict["path"])
    assert (verdict["records"], verdict["damages"]) == (2, [])
    assert path == Path(address.removeprefix("unix:")).parent / "store"
    assert json.loads(well("doctor", address, "--json"))["path"] == str(path)
    flip(segments_in(path)[0], 100)
    assert run("verify", address).returncode == run("doctor", address).returncode == 1


@pytest.mark.parametrize(
    ("where", "words"),
    [("other", "here that is another store"), ("gone", "No such file or directory")],
)
def test_verify_of_a_daemon_with_files_elsewhere(
    address: str,
    where: str,
    words: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another store at the path that the daemon names, in another container perhaps, is none of
    its own: nothing of that is checked.
    """
    there = tmp_path_factory.mktemp("there")
    well("append", "--raw", there / "other", input=b"three\n")

    async def elsewhere(store: object) -> str:
        return str(there / where)

    monkeypatch.setattr("aquipu.remote.store.RemoteStore.daemon_place", elsewhere)
    done = run("verify", address)
    assert (done.returncode, words in done.stderr.decode()) == (4, True), done.stderr


def test_what_the_daemon_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that only the daemon has, and an address that cannot be, are usage errors."""
    monkeypatch.chdir(tmp_path)
    done = run("append", "--raw", "unix:somewhere", "--sync-policy", "every:64")
    assert (done.returncode, b"--sync-policy" in done.stderr) == (2, True)
    for command in ("append", "cat", "follow", "hold", "relations"):
        for address in ("unix:", f"unix:{'x' * 108}"):
            assert run(command, address).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_there(tmp_path: Path) -> None:
    """Exit code 4, when it was waited for as long as it was told to."""
    for command in (("append",), ("purge", "--before", "1")):
        done = run(command[0], f"unix:{tmp_path}/nobody", *command[1:], "--lock-timeout", "0")
        assert (done.returncode, b"cannot reach the daemon at" in done.stderr) == (4, True)
    assert list(tmp_path.iterdir()) == []


def test_the_socket_as_an_address(tmp_path: Path) -> None:
    """serve takes what its clients are given."""
    with serving(tmp_path, "--socket", f"unix:{tmp_path}/socket") as process:
        well("append", "--raw", f"unix:{tmp_path}/socket", input=b"x")
        process.send_signal(signal.SIGTERM)
        ended(process, 0)
    assert data_in(tmp_path / "store") == [b"x"]
