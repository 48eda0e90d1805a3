"""app, queries, changes and main: the whole command, on real log lines."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, Signals
from subprocess import CompletedProcess

import pytest
import typer

from aquipu import Always, EveryN, NotAStoreError, OsManaged, Store, SyncPolicy
from aquipu.cli.changes import sync_policy_of
from aquipu.cli.console import PIECE_BYTES
from aquipu.cli.lines import LINE_BYTES_MAX
from aquipu.disk import Disk
from aquipu.frame import Flag
from aquipu.layout import MANIFEST
from aquipu.lock import Lock
from tests.cli.support import COMMAND, ENVIRONMENT, FAILURE, LOG, SAMPLE, in_shell, run, spawn, well
from tests.support import data_in, flip, frames_in, segments_in, snapshot

LINES = io.BytesIO(SAMPLE).readlines()
READING = ("cat", "info", "verify")
JSON_READING = ("info", "verify")
COMMANDS = (
    *(
        "append",
        "cat",
        "export",
        "find",
        "follow",
        "hold",
        "index",
        "info",
        "purge",
        "relations",
        "repair",
        "serve",
        "tail",
        "verify",
    ),
)


@pytest.fixture(scope="module")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "store"
    well("append", path, input=SAMPLE)
    return path


@pytest.fixture
def store(made_store: Path, tmp_path: Path) -> Path:
    """A store that holds the sample."""
    return Path(shutil.copytree(made_store, tmp_path / "store"))


@pytest.fixture(scope="module")
def made_segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "store"

    async def fill() -> None:
        async with Store.open(path, sync_policy=Always(), max_segment_bytes=4096) as store:
            for line in LINES:
                await store.append(line)

    asyncio.run(fill())
    assert len(segments_in(path)) > 2
    return path


@pytest.fixture
def segments(made_segments: Path, tmp_path: Path) -> Path:
    """A store that holds the sample in several segments."""
    return Path(shutil.copytree(made_segments, tmp_path / "store"))


class Terminal:
    """The far end of a terminal that a command writes to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def wait_for(self, text: bytes) -> None:
        """Read until the text is there."""
        while text not in self.seen:
            self.seen += os.read(self._descriptor, 65536)

    def wait_for_end(self) -> str:
        """All that was written, once nobody is left who could write."""
        try:
            while piece := os.read(self._descriptor, 65536):
                self.seen += piece
        except OSError:  # how Linux says it
            pass
        text = self.seen.decode()
        assert FAILURE.decode() not in text, text
        return text


@contextmanager
def terminal() -> Iterator[tuple[Terminal, int]]:
    """A terminal, and the end of it that is for the command; that one is closed here as soon as the command has it."""
    far, near = pty.openpty()
    try:
        yield Terminal(far), near
    finally:
        os.close(far)


@contextmanager
def appending(
    path: Path, *options: str, ignore: Signals | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """``append`` that reads a pipe and has a terminal for standard error."""
    command = [*COMMAND, "append", str(path), *options]
    if ignore is not None:
        command = ["sh", "-c", f"trap '' {ignore.name.removeprefix('SIG')}; exec \"$@\"", "sh", *command]
    with terminal() as (screen, near):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=near, env=ENVIRONMENT, bufsize=0)
        os.close(near)
        try:
            yield process, screen
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)


# append and cat


def test_the_sample_has_the_shape_of_its_source() -> None:
    """The sample must keep what makes it hard: CRLF line ends, and none after the last line."""
    assert len(LINES) == 40
    assert all(line.endswith(b"\r\n") for line in LINES[:-1])
    assert not LINES[-1].endswith((b"\r", b"\n"))


def test_real_log_lines_come_back_as_they_were(tmp_path: Path) -> None:
    """A record is a line with its line end, so what cat writes is the input, byte for byte."""
    appended = spawn("append", tmp_path / "store", input=SAMPLE)
    assert appended.returncode == 0
    assert appended.stdout == b""
    assert appended.stderr == b"40 records appended, last sequence 39, SYNCED\n"
    cat = spawn("cat", tmp_path / "store")
    assert (cat.returncode, cat.stdout, cat.stderr) == (0, SAMPLE, b"")
    assert data_in(tmp_path / "store") == LINES
    verify = spawn("verify", tmp_path / "store")
    assert (verify.returncode, verify.stderr) == (0, b"")
    assert verify.stdout.startswith(b"40 records in ")


@pytest.mark.parametrize(
    ("text", "records"),
    [
        pytest.param(b"", 0, id="nothing"),
        pytest.param(b"\n", 1, id="an-empty-line"),
        pytest.param(b"no line end", 1, id="no-line-end"),
        pytest.param(b"one\rstill one\x0b\x0c\x1c\x85\r\ntwo\n\rthree", 3, id="only-a-line-feed-ends-a-line"),
        pytest.param(bytes(range(256)) * 3, 4, id="bytes-that-are-no-text"),
        pytest.param(b"x" * 600_000 + b"\n" + b"y" * 300_000, 2, id="lines-longer-than-a-read"),
    ],
)
def test_any_input_comes_back_as_it_was(tmp_path: Path, text: bytes, records: int) -> None:
    """Whatever the bytes are: cat gives them back, and there is a record for each line."""
    well("append", tmp_path / "store", input=text)
    assert well("cat", tmp_path / "store") == text
    assert len(data_in(tmp_path / "store")) == records


@pytest.mark.parametrize("append", [pytest.param(run, id="a-file"), pytest.param(spawn, id="a-pipe")])
def test_a_long_input_is_stored_in_pieces(tmp_path: Path, append: Callable[..., CompletedProcess[bytes]]) -> None:
    """An input larger than one read is appended read by read, and no line is torn where two reads meet."""
    text = (SAMPLE + b"\r\n") * (2 * PIECE_BYTES // len(SAMPLE) + 1)
    assert append("append", tmp_path / "store", input=text).returncode == 0
    assert data_in(tmp_path / "store") == io.BytesIO(text).readlines()


def test_a_file_of_empty_lines(tmp_path: Path) -> None:
    """The shortest lines make the largest commits: one read holds more records than a store's buffer takes by default."""
    done = run("append", tmp_path / "store", input=b"\n" * 300_000)
    assert (done.returncode, done.stderr) == (0, b"300,000 records appended, last sequence 299999, SYNCED\n")
    assert well("cat", tmp_path / "store") == b"\n" * 300_000


def test_appending_again_goes_on_behind_the_last_record(store: Path) -> None:
    """The last line tells the last sequence of the store, and how many records this run has stored."""
    done = run("append", store, input=b"one more\n")
    assert done.stderr == b"1 record appended, last sequence 40, SYNCED\n"
    assert well("cat", store) == SAMPLE + b"one more\n"


def test_no_input_makes_an_empty_store(tmp_path: Path) -> None:
    """An input without a byte is no error: the store is there and says that it is empty."""
    done = run("append", tmp_path / "store")
    assert (done.returncode, done.stderr) == (0, b"0 records appended, no sequence yet, SYNCED\n")
    assert well("cat", tmp_path / "store") == b""
    info = json.loads(well("info", tmp_path / "store", "--json"))
    assert (info["records"], info["first_time"], info["last_time"]) == (0, None, None)
    assert well("verify", tmp_path / "store").startswith(b"0 records in ")


@pytest.mark.parametrize(
    ("policy", "at_once"), [("always", True), ("every:39/none", True), ("every:64/none", False), ("os", False)]
)
def test_every_policy_stores_the_same(tmp_path: Path, policy: str, at_once: bool) -> None:
    """A policy decides whether a commit is synced at once, not what is stored; at the end everything is synced."""
    done = run("append", tmp_path / "store", "--sync-policy", policy, input=SAMPLE)
    assert done.stderr == b"40 records appended, last sequence 39, SYNCED\n"
    assert well("cat", tmp_path / "store") == SAMPLE
    _, commit, _ = frames_in(tmp_path / "store")[0]
    assert commit.records == 39  # all lines of the one read; the last one has no end
    assert bool(commit.flags & Flag.OWES_SYNC) is at_once


def test_a_line_as_long_as_a_record_may_be(tmp_path: Path) -> None:
    """The limit of a line counts its line end, and a line of just that length is stored."""
    text = b"x" * (LINE_BYTES_MAX - 1) + b"\n"
    well("append", tmp_path / "store", input=text)
    assert well("cat", tmp_path / "store") == text


def test_a_line_that_is_too_long(tmp_path: Path) -> None:
    """It is one clear error that names the line; what stands before it stays stored."""
    done = run("append", tmp_path / "store", input=b"one\ntwo\n" + b"x" * (LINE_BYTES_MAX + 1) + b"\nfour\n")
    assert done.returncode == 2
    last, error = done.stderr.decode().splitlines()
    assert last == "2 records appended, last sequence 1, SYNCED"
    assert error.startswith(f"aquipu: line 3 of standard input is longer than {LINE_BYTES_MAX:,} bytes")
    assert well("cat", tmp_path / "store") == b"one\ntwo\n"


def test_a_torn_tail_is_cut_by_the_next_append_and_said_so(store: Path) -> None:
    """What opening has cut off, and where it is kept, is said on standard error."""
    segment = segments_in(store)[0]
    segment.write_bytes(segment.read_bytes() + b"half a commit")
    done = run("append", store, input=b"more\n")
    assert done.returncode == 0
    cut, last = done.stderr.decode().splitlines()
    (kept,) = store.glob("*.cut-*")
    assert cut.startswith("aquipu: a torn tail of 13 bytes was cut")
    assert str(kept) in cut
    assert kept.read_bytes() == b"half a commit"
    assert last == "1 record appended, last sequence 40, SYNCED"


def test_a_file_system_that_is_full(store: Path) -> None:
    """Without space exit code 4 and one line say so; nothing of the refused commit is kept, and nothing else is lost."""
    before = segments_in(store)[0].stat().st_size
    blocks = before // 512 + 2
    done = in_shell(f'ulimit -f {blocks}; exec "$@"', "append", store, input=b"x" * 4096 + b"\n")
    assert done.returncode == 4
    last, error = done.stderr.decode().splitlines()
    assert last == "0 records appended, last sequence 39, SYNCED"
    assert "no space" in error
    assert well("cat", store) == SAMPLE


# signals


@pytest.mark.parametrize("signal", [SIGINT, SIGTERM, SIGHUP])
def test_a_signal_loses_nothing_that_was_read(tmp_path: Path, signal: Signals) -> None:
    """A signal ends it as the end of the input does: all is stored and synced, and the exit code tells the signal."""
    with appending(tmp_path / "store") as (process, screen):
        send(process, b"one\r\ntwo\nhalf a li")
        screen.wait_for(b"2 records")
        process.send_signal(signal)
        assert "3 records appended, last sequence 2, SYNCED" in screen.wait_for_end()
        assert process.wait() == 128 + signal
    assert well("cat", tmp_path / "store") == b"one\r\ntwo\nhalf a li"
    assert json.loads(well("info", tmp_path / "store", "--json"))["clean"] is True


@pytest.mark.parametrize("signal", [SIGINT, SIGHUP])
def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path, signal: Signals) -> None:
    """A job in the background (nohup, or a shell's &) is not ended by what it was told to ignore."""
    with appending(tmp_path / "store", ignore=signal) as (process, screen):
        send(process, b"one\n")
        screen.wait_for(b"1 record")
        process.send_signal(signal)
        send(process, b"two\n")
        screen.wait_for(b"2 records")
        process.communicate()
        assert process.returncode == 0
    assert well("cat", tmp_path / "store") == b"one\ntwo\n"


def test_a_line_of_a_slow_pipe_is_stored_at_once(tmp_path: Path) -> None:
    """A line waits for no other: it is in the store while the pipe is still open, and a kill does not take it."""
    with appending(tmp_path / "store", "--sync-policy", "os") as (process, screen):
        send(process, LINES[0])
        screen.wait_for(b"1 record")
        process.send_signal(SIGKILL)
        assert process.wait() == -SIGKILL
    assert well("cat", tmp_path / "store") == LINES[0]
    assert json.loads(well("info", tmp_path / "store", "--json"))["clean"] is False


def test_ctrl_c_while_it_waits_for_the_lock(store: Path) -> None:
    """Before anything was read there is nothing to store: it ends quietly, and the store is as it was."""
    before = snapshot(store)
    lock = Lock.take(Disk(), str(store), shared=True)
    assert lock is not None
    command = [sys.executable, "-c", WAITING, str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(SIGINT)
        _, errors = process.communicate()
        assert (process.returncode, errors) == (130, b"")
    lock.release()
    assert snapshot(store) == before


WAITING = """
import sys
from aquipu.__main__ import main
from aquipu.disk import Disk

def told(self, path, *, shared=False, try_lock=Disk.try_lock):
    held = try_lock(self, path, shared=shared)
    print("waiting" if held is None else "held", flush=True)
    return held

Disk.try_lock = told
sys.argv = ["aquipu", "append", sys.argv[1]]
main()
"""


def test_ctrl_c_while_cat_cannot_write(tmp_path: Path) -> None:
    """Nothing holds Ctrl-C up, not even an output that nobody reads; and it is no traceback."""
    well("append", tmp_path / "store", input=b"x" * 1_000_000)
    with subprocess.Popen([*COMMAND, "cat", tmp_path / "store"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        process.send_signal(SIGINT)
        assert process.wait() in (-SIGINT, 130)
        assert process.stderr is not None
        assert process.stderr.read() == b""


# pipes and terminals


def test_a_pipe_that_is_closed_while_cat_writes(tmp_path: Path) -> None:
    """`aquipu cat S | head -1` ends quietly and well."""
    well("append", tmp_path / "store", input=(SAMPLE + b"\r\n") * 100)
    with subprocess.Popen([*COMMAND, "cat", tmp_path / "store"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == LINES[0]
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize("arguments", [["cat"], ["info"], ["info", "--json"], ["verify"], ["verify", "--json"]])
def test_a_pipe_that_was_closed_before_anything_was_written(store: Path, arguments: list[str]) -> None:
    """Output so short that only the last flush would write it is no traceback either."""
    done = run_into_closed_pipe(*arguments, str(store))
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_pipe_does_not_hide_damage(store: Path) -> None:
    """verify says by its exit code what it found, also when nobody reads the rest."""
    flip(segments_in(store)[0], 500)
    done = run_into_closed_pipe("verify", str(store))
    assert (done.returncode, done.stderr) == (1, b"")


def run_into_closed_pipe(*arguments: str) -> CompletedProcess[bytes]:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run([*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)


@pytest.mark.parametrize(("command", "code"), [("append", 0), ("cat", 2)])
def test_standard_error_that_nobody_reads(tmp_path: Path, command: str, code: int) -> None:
    """What cannot be said there changes neither what is done nor the exit code."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, command, tmp_path / "store"], input=SAMPLE, stderr=writing, check=False)
    os.close(writing)
    assert done.returncode == code
    if command == "append":
        assert well("cat", tmp_path / "store") == SAMPLE


def test_a_device_that_takes_no_more(store: Path) -> None:
    """An output that cannot be written is an input/output error, said in one line."""
    done = in_shell('exec "$@" > /dev/full', "cat", store)
    assert done.returncode == 4
    assert "standard output" in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("command", "redirection"), [("append", "<&-"), ("cat", ">&-"), ("info", ">&-"), ("verify", ">&-")]
)
def test_a_standard_stream_that_is_not_there(store: Path, command: str, redirection: str) -> None:
    """A command that was started without the stream that it needs says so, and touches nothing."""
    before = snapshot(store)
    done = in_shell(f'exec "$@" {redirection}', command, store)
    assert done.returncode == 4
    assert b"it is closed" in done.stderr
    assert snapshot(store) == before


def test_a_standard_input_that_cannot_be_read(tmp_path: Path) -> None:
    """It is an input/output error that names the stream; the store is closed as it should be."""
    done = in_shell('exec "$@" 0>/dev/null', "append", tmp_path / "store")
    assert done.returncode == 4
    last, error = done.stderr.decode().splitlines()
    assert last == "0 records appended, no sequence yet, SYNCED"
    assert "'standard input'" in error
    assert json.loads(well("info", tmp_path / "store", "--json"))["clean"] is True


def test_append_shows_a_bar_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal, append counts records, bytes and records a second; the last line comes after that."""
    with appending(tmp_path / "store") as (process, screen):
        send(process, SAMPLE)
        process.communicate()
        text = screen.wait_for_end()
    assert "40 records" in text
    assert "records/s" in text
    assert "/? kB" in text
    assert text.endswith("40 records appended, last sequence 39, SYNCED\r\n")


def test_append_of_a_file_knows_how_much_there_is(tmp_path: Path) -> None:
    """The bar of a file that is read shows its size."""
    with terminal() as (screen, near), LOG.open("rb") as source:
        process = subprocess.Popen([*COMMAND, "append", tmp_path / "store"], stdin=source, stderr=near, env=ENVIRONMENT)
        os.close(near)
        assert "12.0/12.0 kB" in screen.wait_for_end()
        assert process.wait() == 0


def test_lines_that_are_typed_are_not_painted_over(tmp_path: Path) -> None:
    """When standard input is a terminal as well, there is no bar; the end of the input is Ctrl-D, as ever."""
    with terminal() as (screen, near):
        process = subprocess.Popen([*COMMAND, "append", tmp_path / "store"], stdin=near, stderr=near, env=ENVIRONMENT)
        os.close(near)
        screen.type(b"typed\n\x04")
        text = screen.wait_for_end()
        assert process.wait() == 0
    assert "records/s" not in text
    assert "1 record appended, last sequence 0, SYNCED" in text
    assert well("cat", tmp_path / "store") == b"typed\n"


def test_verify_shows_a_bar_on_a_terminal(segments: Path) -> None:
    """On a terminal, verify shows on standard error how many bytes it has read; the verdict goes to standard output."""
    with terminal() as (screen, near):
        process = subprocess.Popen([*COMMAND, "verify", segments], stdout=subprocess.PIPE, stderr=near, env=ENVIRONMENT)
        os.close(near)
        text = screen.wait_for_end()
        verdict, _ = process.communicate()
    size = sum(segment.stat().st_size for segment in segments_in(segments))
    assert f"{size / 1000:.1f}/{size / 1000:.1f} kB" in text
    assert verdict.startswith(b"40 records in ")


def test_no_bar_without_a_terminal(segments: Path) -> None:
    """A pipe or a file gets no bar: nothing stands on standard error when all is well."""
    assert run("verify", segments).stderr == b""


# info and verify


def test_info_tells_what_a_store_holds(tmp_path: Path) -> None:
    """The object that info --json prints has the documented fields, and they are true."""
    began = datetime.now(UTC)
    well("append", tmp_path / "store", input=SAMPLE)
    ended = datetime.now(UTC)
    info = json.loads(well("info", tmp_path / "store", "--json"))
    assert list(info) == [
        "path",
        "store_id",
        "format_version",
        "first_sequence",
        "next_sequence",
        "records",
        "segments",
        "bytes",
        "first_time",
        "last_time",
        "clean",
        "torn_tail",
        "holds",
    ]
    assert info["path"] == str(tmp_path / "store")
    assert bytes.fromhex(info["store_id"]) == (tmp_path / "store" / MANIFEST).read_bytes()[16:32]
    assert info["format_version"] == 1
    assert (info["first_sequence"], info["next_sequence"], info["records"], info["segments"]) == (0, 40, 40, 1)
    assert info["bytes"] == sum(file.stat().st_size for file in (tmp_path / "store").iterdir())
    first, last = (datetime.fromisoformat(info[name]) for name in ("first_time", "last_time"))
    assert began <= first <= last <= ended
    assert info["clean"] is True
    assert info["torn_tail"] is None
    assert info["holds"] == {}


def test_info_in_words(segments: Path) -> None:
    """Without --json the same stands there for people, a line for each."""
    info = json.loads(well("info", segments, "--json"))
    words = well("info", segments).decode()
    for line in (
        f"path            {segments}",
        "records         40",
        "sequences       0 to 39",
        f"segments        {info['segments']}",
        f"first record    {info['first_time']}",
        "closed cleanly  yes",
        "torn tail       none",
        "holds           none",
    ):
        assert f"{line}\n" in words


def test_verify_counts_what_it_has_read(segments: Path) -> None:
    """The object that verify --json prints has the documented fields, and they are true of several segments."""
    verdict = json.loads(well("verify", segments, "--json"))
    files = segments_in(segments)
    assert verdict == {
        "path": str(segments),
        "records": 40,
        "frames": 41,  # one for each append, and the mark of the close
        "segments": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "damages": [],
        "torn_tail": None,
    }
    assert well("cat", segments) == SAMPLE


def test_verify_writes_large_numbers_so_that_people_can_read_them(tmp_path: Path) -> None:
    """2000 lines are reported as 2,000 records."""
    well("append", tmp_path / "store", input=b"\n" * 2000)
    words = well("verify", tmp_path / "store").decode()
    assert words.startswith("2,000 records in ")
    assert words.endswith("no damage\n")


@pytest.mark.parametrize("command", READING)
def test_reading_changes_no_byte(segments: Path, command: str) -> None:
    """Names, bytes and times of the files are as they were, of a store with a torn tail too."""
    last = segments_in(segments)[-1]
    last.write_bytes(last.read_bytes() + b"half a commit")
    before = snapshot(segments)
    well(command, segments)
    assert snapshot(segments) == before


@pytest.mark.parametrize("command", READING)
def test_a_torn_tail_is_no_damage(store: Path, command: str) -> None:
    """Bytes that were never promised are not part of what is read; info and verify say that they are there."""
    segment = segments_in(store)[0]
    size = segment.stat().st_size
    segment.write_bytes(segment.read_bytes() + b"half a commit")
    found = well(command, store)
    if command == "cat":
        assert found == SAMPLE
        return
    assert b"torn tail" in found
    torn = json.loads(well(command, store, "--json"))["torn_tail"]
    assert torn["path"] == str(segment)
    assert (torn["offset"], torn["bytes"], torn["records"]) == (size, 13, 0)
    assert torn["reason"]
    assert torn["possibly_acknowledged"] is True


def test_a_torn_tail_is_not_called_clean(store: Path) -> None:
    """info says of a store that must be mended that it was not closed cleanly."""
    segment = segments_in(store)[0]
    segment.write_bytes(segment.read_bytes() + b"half a commit")
    assert json.loads(well("info", store, "--json"))["clean"] is False
    assert b"closed cleanly  no\n" in well("info", store)


# damage


def test_a_flipped_bit_in_the_last_segment(store: Path) -> None:
    """Damage where opening looks: every command has exit code 1, and verify names file, offset and reason."""
    segment = segments_in(store)[0]
    flip(segment, 500)
    before = snapshot(store)
    for command in ("cat", "info"):
        done = run(command, store)
        assert (done.returncode, done.stdout) == (1, b"")
        assert f"aquipu: {segment} is damaged at offset 64: ".encode() in done.stderr
    done = run("verify", store)
    assert done.returncode == 1
    assert done.stderr == b""
    assert f"damaged: {segment} at offset 64: " in done.stdout.decode()
    assert "no damage" not in done.stdout.decode()
    verdict = json.loads(run("verify", store, "--json").stdout)
    assert (verdict["records"], verdict["frames"]) == (None, None)
    (damage,) = verdict["damages"]
    assert (damage["path"], damage["offset"]) == (str(segment), 64)
    assert "does not check" in damage["reason"]
    assert snapshot(store) == before


def test_appending_to_a_damaged_store(store: Path) -> None:
    """Nothing is written behind damage: exit code 1, and the files of the log are as they were."""
    segment = segments_in(store)[0]
    flip(segment, 500)
    held = segment.read_bytes()
    done = run("append", store, input=b"more\n")
    assert done.returncode == 1
    assert f"aquipu: {segment} is damaged at offset 64: ".encode() in done.stderr
    assert segment.read_bytes() == held


def test_flipped_bits_in_sealed_segments(segments: Path) -> None:
    """Damage where opening does not look: verify finds the first of each segment, and still counts the records."""
    second, third = segments_in(segments)[1:3]
    flip(second, 1500)
    flip(third, 700)
    done = run("verify", segments, "--json")
    assert done.returncode == 1
    verdict = json.loads(done.stdout)
    assert [damage["path"] for damage in verdict["damages"]] == [str(second), str(third)]
    assert verdict["records"] == 40


def test_cat_gives_every_record_before_the_damage(segments: Path) -> None:
    """The frame that does not check ends it with exit code 1; what stands before that frame is all there."""
    second = segments_in(segments)[1]
    offset, header, _ = frames_in(segments, int(second.stem))[3]
    flip(second, offset + 100)
    done = run("cat", segments)
    assert done.returncode == 1
    assert f"aquipu: {second} is damaged at offset {offset}: ".encode() in done.stderr
    assert io.BytesIO(done.stdout).readlines() == LINES[: header.first_sequence]


@pytest.mark.parametrize("command", ["append", *READING])
def test_a_later_format(store: Path, command: str) -> None:
    """A store of a later version is not damaged: exit code 4, and nothing is written."""
    manifest = bytearray((store / MANIFEST).read_bytes())
    manifest[8] += 1
    (store / MANIFEST).write_bytes(manifest)
    held = segments_in(store)[0].read_bytes()
    done = run(command, store, input=b"more\n")
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"format version 2 is not known here" in done.stderr
    assert segments_in(store)[0].read_bytes() == held


# locks


@pytest.mark.parametrize("command", JSON_READING)
def test_a_store_that_is_being_written(store: Path, command: str) -> None:
    """A store at work is not examined: exit code 3, with the pid of who writes it."""
    lock = Lock.take(Disk(), str(store))
    assert lock is not None
    before = snapshot(store)
    done = spawn(command, store)
    assert snapshot(store) == before
    lock.release()
    assert (done.returncode, done.stdout) == (3, b"")
    assert f"is in use by process {os.getpid()};" in done.stderr.decode()


def test_appending_to_a_store_that_is_being_written(store: Path) -> None:
    """append waits for the lock as long as it was told, and then says who holds it."""
    lock = Lock.take(Disk(), str(store))
    assert lock is not None
    done = spawn("append", store, "--lock-timeout", "0", input=b"more\n")
    lock.release()
    assert done.returncode == 3
    assert f"is in use by process {os.getpid()};" in done.stderr.decode()
    assert well("cat", store) == SAMPLE


@pytest.mark.parametrize(("seconds", "code"), [("0", 3), ("30", 0)])
def test_how_long_append_waits_for_the_lock(store: Path, monkeypatch: pytest.MonkeyPatch, seconds: str, code: int) -> None:
    """With no time to wait it tries once; with some it has the store as soon as that is free."""
    lock = Lock.take(Disk(), str(store))
    assert lock is not None
    try_lock = Disk.try_lock

    def freed_after_the_first(disk: Disk, path: str, *, shared: bool = False) -> int | None:
        descriptor = try_lock(disk, path, shared=shared)
        lock.release()
        return descriptor

    monkeypatch.setattr(Disk, "try_lock", freed_after_the_first)
    assert run("append", store, "--lock-timeout", seconds, input=b"more\n").returncode == code


def test_readers_do_not_exclude_each_other(store: Path) -> None:
    """The lock of a reader is shared: others read, and nobody writes meanwhile."""
    lock = Lock.take(Disk(), str(store), shared=True)
    assert lock is not None
    assert well("cat", store) == SAMPLE
    assert run("append", store, "--lock-timeout", "0", input=b"more\n").returncode == 3
    lock.release()
    assert run("append", store, "--lock-timeout", "0", input=b"more\n").returncode == 0


# usage


@pytest.mark.parametrize("command", READING)
def test_nothing_of_that_name(tmp_path: Path, command: str) -> None:
    """Reading makes no store where there is none."""
    done = run(command, tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == f"aquipu: {NotAStoreError(str(tmp_path / 'nowhere'), 'there is nothing of this name')}\n".encode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", READING)
def test_an_empty_directory_is_no_store(tmp_path: Path, command: str) -> None:
    """It is said, and the directory stays empty."""
    done = run(command, tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == f"aquipu: {NotAStoreError(str(tmp_path), 'the directory holds none')}\n".encode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["append", *READING])
def test_a_file_as_the_store(tmp_path: Path, command: str) -> None:
    """A file is refused and stays as it is."""
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    done = run(command, file, input=b"more\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"aquipu: {file} is no store: it is a file" in done.stderr.decode()
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize("command", ["append", *READING])
def test_a_directory_that_holds_something_else(tmp_path: Path, command: str) -> None:
    """Nothing is written into a directory that is somebody else's."""
    (tmp_path / "letter.txt").write_bytes(b"mine")
    before = snapshot(tmp_path)
    done = run(command, tmp_path, input=b"more\n")
    assert (done.returncode, done.stdout) == (2, b"")
    if command != "cat":  # who only reads does not mind what else is there
        assert "the directory holds other things, 'letter.txt' among them" in done.stderr.decode()
    assert f"aquipu: {tmp_path} is no store: ".encode() in done.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no-command"),
        pytest.param(["erase"], id="unknown-command"),
        pytest.param(["append"], id="no-store"),
        pytest.param(["cat", "one", "two"], id="two-stores"),
        pytest.param(["info", "store", "--yaml"], id="unknown-option"),
        pytest.param(["append", "store", "--lock-timeout", "-1"], id="negative-time"),
        pytest.param(["append", "store", "--lock-timeout", "nan"], id="time-that-is-no-number"),
        pytest.param(["append", "store", "--sync-policy", "every:0"], id="policy-that-cannot-be"),
        pytest.param(["append", "store", "--relation", ""], id="empty-label"),
        pytest.param(["append", "store", "--relation", "a\nb"], id="label-with-a-control-character"),
        pytest.param(["find", "store"], id="no-label"),
        pytest.param(["export", "store"], id="no-format"),
        pytest.param(["export", "store", "--format", "xml"], id="unknown-format"),
        pytest.param(["purge", "store"], id="no-bound"),
        pytest.param(["purge", "store", "--before", "-1"], id="negative-bound"),
        pytest.param(["purge", "store", "--before", "yesterday"], id="bound-that-is-no-time"),
        pytest.param(["purge", "store", "--before", "2026-01-31T12:00"], id="time-without-a-zone"),
        pytest.param(["hold", "store", "a/b"], id="name-with-a-slash"),
        pytest.param(["hold", "store", "--release"], id="no-name-to-release"),
        pytest.param(["hold", "store", "name", "5", "--release"], id="release-with-a-sequence"),
        pytest.param(["hold", "store", "name", "-5"], id="negative-sequence"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad argument is a usage error: exit code 2, help on standard error, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    done = run(*arguments, input=b"more\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Usage: aquipu" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("always", Always()),
        ("os", OsManaged()),
        ("every:1", EveryN(1)),
        ("every:64", EveryN(64, within=1.0)),
        ("every:64/0.5", EveryN(64, within=0.5)),
        ("every:8/30", EveryN(8, within=30.0)),
        ("every:8/none", EveryN(8, within=None)),
    ],
)
def test_a_policy_is_what_its_text_says(text: str, policy: SyncPolicy) -> None:
    """The texts of --sync-policy stand for the policies of the package."""
    assert sync_policy_of(text) == policy


@pytest.mark.parametrize(
    "text",
    [
        *("", "never", "every", "every:", "every:0", "every:-1", "every:six", "every:6_4", "every:٦", "every:64/"),
        *("every:64/0", "every:64/-1", "every:64/nan", "every:64/1s", " always", "ALWAYS", "every:64\n"),
        pytest.param("every:" + "9" * 5000, id="beyond-all-numbers"),
        pytest.param("every:1/" + "9" * 400, id="for-ever"),
    ],
)
def test_a_text_that_is_no_policy(text: str) -> None:
    """Whatever else stands there is a usage error."""
    with pytest.raises(typer.BadParameter):
        sync_policy_of(text)


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
def test_help_tells_the_exit_codes(command: list[str]) -> None:
    """The exit codes stand in every help."""
    text = well(*command, "--help").decode()
    assert "Exit codes:" in text
    for line in ("0    well", "1    damage found", "2    usage", "3    locked", "4    an input/output error"):
        assert line in text


@pytest.mark.parametrize("command", JSON_READING)
def test_help_tells_the_fields_of_the_json_object(store: Path, command: str) -> None:
    """What --json prints is documented field by field."""
    text = well(command, "--help").decode()
    for field in json.loads(well(command, store, "--json")):
        assert f"\n    {field} " in text


def test_a_path_that_is_no_text(tmp_path: Path) -> None:
    """A name that is no UTF-8 comes out as the bytes that it is."""
    path = tmp_path / os.fsdecode(b"st\xf6re")
    well("append", path, input=SAMPLE)
    assert well("info", path).splitlines()[0].endswith(b"/st\xf6re")
    assert json.loads(well("info", path, "--json"))["path"] == str(path)


# what is read, and how


@pytest.fixture(scope="module")
def made_labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "store"

    async def fill() -> None:
        async with Store.open(path, sync_policy=Always(), max_segment_bytes=4096) as store:
            for number, line in enumerate(LINES):
                await store.append(line, relations=(f"third:{number % 3}", *(["tens"] if number % 10 == 0 else [])))

    asyncio.run(fill())
    return path


@pytest.fixture
def labelled(made_labelled: Path, tmp_path: Path) -> Path:
    """A store that holds the sample in several segments, with labels: third:0 to third:2, and tens on 0, 10, 20, 30."""
    return Path(shutil.copytree(made_labelled, tmp_path / "store"))


def lines(*numbers: int) -> bytes:
    return b"".join(LINES[number] for number in numbers)


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--start", "37"], [37, 38, 39]),
        (["--stop", "2"], [0, 1]),
        (["--start", "5", "--stop", "7"], [5, 6]),
        (["--start", "5", "--stop", "5"], []),
        (["--start", "38", "--reverse"], [39, 38]),
        (["--relation", "tens"], [0, 10, 20, 30]),
        (["--relation", "tens", "--relation", "third:0"], [0, 30]),
        (["--relation", "tens", "--relation", "third:0", "--any", "--stop", "11"], [0, 3, 6, 9, 10]),
        (["--relation", "tens", "--start", "1", "--reverse"], [30, 20, 10]),
        (["--relation", "nobody"], []),
        (["--since", "2001-01-01T00:00:00Z", "--stop", "1"], [0]),
        (["--until", "2001-01-01T00:00:00+02:00"], []),
    ],
)
def test_cat_gives_what_its_options_ask_for(labelled: Path, options: list[str], numbers: list[int]) -> None:
    """All options together must hold; the records come in their order, or the newest first."""
    assert well("cat", labelled, *options) == lines(*numbers)


def test_cat_between_two_times(labelled: Path) -> None:
    """Times are those of the records, since is part of it and until is not."""
    times = [json.loads(line)["time"] for line in well("cat", labelled, "--json").splitlines()]
    assert times == sorted(times)
    found = well("cat", labelled, "--since", f"{times[10][:26]}Z", "--until", f"{times[20][:26]}Z", "--json")
    sequences = [json.loads(line)["sequence"] for line in found.splitlines()]
    first = next(number for number, time in enumerate(times) if time[:26] >= times[10][:26])
    stop = next(number for number, time in enumerate(times) if time[:26] >= times[20][:26])
    assert sequences == list(range(first, stop))


def test_cat_as_json(labelled: Path) -> None:
    """Each record is a line with the documented fields."""
    (line,) = well("cat", labelled, "--json", "--start", "30", "--stop", "31").splitlines()
    record = json.loads(line)
    assert list(record) == ["sequence", "time", "encoding", "data", "relations"]
    assert (record["sequence"], record["encoding"]) == (30, "utf-8")
    assert record["data"].encode() == LINES[30]
    assert record["relations"] == ["third:0", "tens"]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--start", "5", "--stop", "3"], "not after its stop"),
        (["--start", "-1"], "from 0 on"),
        (["--since", "2026-01-31T12:00:00"], "lacks its time zone"),
        (["--until", "noon"], "is no time"),
        (["--since", "2026-01-31T12:00:00Z", "--until", "2026-01-31T11:00:00Z"], "not after its until"),
        (["--relation", ""], "not empty"),
    ],
)
def test_cat_refuses_what_cannot_be(labelled: Path, options: list[str], hint: str) -> None:
    """It is a usage error that says what is wrong, and nothing is written."""
    done = run("cat", labelled, *options)
    assert (done.returncode, done.stdout) == (2, b"")
    assert hint in " ".join(done.stderr.decode().split())


def test_find(labelled: Path) -> None:
    """Records are found by all of the labels, or by any."""
    assert well("find", labelled, "tens", "third:1") == lines(10)
    assert well("find", labelled, "tens", "nobody", "--any", "--reverse") == lines(30, 20, 10, 0)
    assert well("find", labelled, "nobody") == b""
    assert json.loads(well("find", labelled, "tens", "third:1", "--json"))["sequence"] == 10


def test_relations(labelled: Path) -> None:
    """Labels are listed in order with their numbers; with --json as one object."""
    assert well("relations", labelled) == b"4\ttens\n14\tthird:0\n13\tthird:1\n13\tthird:2\n"
    assert json.loads(well("relations", labelled, "--prefix", "third:", "--json")) == {
        "third:0": 14,
        "third:1": 13,
        "third:2": 13,
    }
    assert well("relations", labelled, "--prefix", "x") == b""


def test_tail(labelled: Path) -> None:
    """The last ten records, or as many as asked for."""
    assert well("tail", labelled) == lines(*range(30, 40))
    assert well("tail", labelled, "-n", "2") == lines(38, 39)
    assert well("tail", labelled, "-n", "0") == b""
    assert well("tail", labelled, "-n", "1000") == SAMPLE


def test_lines_get_the_labels_that_append_is_given(tmp_path: Path) -> None:
    """--relation may be repeated, and holds for every line, also for the last one without an end."""
    well("append", tmp_path / "store", "--relation", "host:a", "--relation", "app b", input=b"one\ntwo")
    assert well("find", tmp_path / "store", "app b", "host:a") == b"one\ntwo"
    assert json.loads(well("relations", tmp_path / "store", "--json")) == {"app b": 2, "host:a": 2}


@pytest.mark.parametrize(
    "arguments",
    [["cat"], ["tail"], ["find", "label"], ["relations"], ["export", "--format", "csv"], ["hold", "name"], ["hold"]],
    ids=" ".join,
)
def test_commands_that_work_while_a_service_writes(tmp_path: Path, arguments: list[str]) -> None:
    """They need no lock, and see what was acknowledged."""
    command, *options = arguments

    async def work() -> CompletedProcess[bytes]:
        async with Store.open(tmp_path / "store") as store:
            await store.append(b"one\n", relations=("label",))
            return await asyncio.to_thread(spawn, command, tmp_path / "store", *options)

    done = asyncio.run(work())
    assert done.returncode == 0, done.stderr
    assert (done.stdout != b"") == (command != "hold")


@pytest.mark.parametrize(
    "arguments", [["purge", "--before", "0", "--lock-timeout", "0"], ["index"], ["repair"]], ids=" ".join
)
def test_commands_that_need_the_store_to_themselves(store: Path, arguments: list[str]) -> None:
    """While another process uses it, exit code 3 says who does."""
    command, *options = arguments
    lock = Lock.take(Disk(), str(store))
    assert lock is not None
    done = spawn(command, store, *options)
    lock.release()
    assert (done.returncode, done.stdout) == (3, b"")
    assert f"is in use by process {os.getpid()};" in done.stderr.decode()


@pytest.mark.parametrize(
    "arguments", [["follow", "--start", "0"], ["tail", "-f", "-n", "1"], ["follow", "--start", "0", "--json"]], ids=" ".join
)
def test_following(tmp_path: Path, arguments: list[str]) -> None:
    """What is there comes first, and then each record when it is acknowledged, until Ctrl-C."""
    command, *options = arguments

    def told(line: bytes) -> bytes:
        return json.loads(line)["data"].encode() if "--json" in options else line

    async def work() -> None:
        async with Store.open(tmp_path / "store") as store:
            await store.append(b"one\n")
            process = await asyncio.create_subprocess_exec(
                *COMMAND, command, tmp_path / "store", *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            assert process.stdout is not None
            assert process.stderr is not None
            assert told(await process.stdout.readline()) == b"one\n"
            for line in LINES[:3]:
                await store.append(line)
                assert told(await process.stdout.readline()) == line
            process.send_signal(SIGINT)
            assert await process.wait() in (-SIGINT, 130)
            assert await process.stderr.read() == b""

    asyncio.run(work())


@pytest.mark.parametrize(
    "arguments",
    [
        *(["tail"], ["follow"], ["find", "label"], ["relations"], ["export", "--format", "ndjson"], ["hold"]),
        *(["hold", "name"], ["index"], ["purge", "--before", "1"], ["repair"]),
    ],
    ids=" ".join,
)
def test_no_store_is_made_where_there_is_none(tmp_path: Path, arguments: list[str]) -> None:
    """Nothing but append makes one, and nothing is written into an empty directory."""
    command, *options = arguments
    for path in (tmp_path / "nowhere", tmp_path):
        done = run(command, path, *options)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"is no store" in done.stderr
    assert list(tmp_path.iterdir()) == []


# purge, hold, index


def test_a_purge(segments: Path) -> None:
    """Whole segments before the bound go; a dry run says the same and does nothing."""
    second = int(segments_in(segments)[1].stem)
    before = {file.name: file.read_bytes() for file in segments_in(segments)}
    dry = json.loads(well("purge", segments, "--before", str(second + 1), "--dry-run", "--json"))
    assert {file.name: file.read_bytes() for file in segments_in(segments)}.keys() == before.keys()
    purged = json.loads(well("purge", segments, "--before", str(second + 1), "--json"))
    assert purged == {**dry, "dry_run": False}
    assert purged == {
        "first_sequence_before": 0,
        "first_sequence": second,
        "segments": 1,
        "records": second,
        "bytes": len(before[f"{0:020d}.segment"]),
        "dry_run": False,
    }
    assert well("cat", segments) == b"".join(LINES[second:])
    done = run("cat", segments, "--start", "0")
    assert done.returncode == 2
    assert b"no longer keeps sequence 0" in done.stderr


def test_a_purge_by_time_in_words(segments: Path) -> None:
    """A time is told from a sequence; the segment that is being written stays."""
    words = well("purge", segments, "--before", "2999-01-01T00:00:00Z", "--dry-run").decode()
    last = int(segments_in(segments)[-1].stem)
    assert f"would go; the log would begin with sequence {last}\n" in words
    assert run("purge", segments, "--before", "2001-01-01T00:00Z").stdout.startswith(
        b"0 segments, 0 records, 0 bytes purged"
    )


def test_a_hold(segments: Path) -> None:
    """What is held is not purged, until the hold is released."""
    second, third = (int(file.stem) for file in segments_in(segments)[1:3])
    assert (
        run("hold", segments, "backup", str(second)).stderr
        == f"backup keeps everything from sequence {second} on\n".encode()
    )
    assert well("hold", segments) == f"{second}\tbackup\n".encode()
    assert json.loads(well("hold", segments, "--json")) == {"backup": second}
    well("purge", segments, "--before", str(third))
    assert json.loads(well("info", segments, "--json"))["first_sequence"] == second
    assert json.loads(well("hold", segments, "backup", "--release", "--json")) == {}
    well("purge", segments, "--before", str(third))
    assert json.loads(well("info", segments, "--json"))["first_sequence"] == third


def test_a_hold_of_all_there_is(segments: Path) -> None:
    """Without a sequence, everything is kept that is kept now."""
    well("hold", segments, "backup")
    assert json.loads(well("hold", segments, "--json")) == {"backup": 0}


def test_holds_that_cannot_be(segments: Path) -> None:
    """A sequence that is not yet, or no longer, there, and a hold that nobody has set, are usage errors."""
    assert run("hold", segments, "late", "41").returncode == 2
    second = segments_in(segments)[1].stem
    well("purge", segments, "--before", str(int(second)))
    assert run("hold", segments, "early", "0").returncode == 2
    done = run("hold", segments, "nobody", "--release")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"has no hold of the name nobody" in done.stderr
    assert well("hold", segments) == b""


def test_index(labelled: Path) -> None:
    """Missing and damaged indexes are built; sound ones only with --rebuild; finding gives the same in any case."""
    sealed = len(segments_in(labelled)) - 1
    for file in labelled.glob("*.relations"):
        file.unlink()
    assert f"indexes built: {sealed}\n".encode() in run("index", labelled).stderr
    assert run("index", labelled).stderr.endswith(b"indexes built: 0\n")
    flip(sorted(labelled.glob("*.relations"))[1], 20)
    assert well("find", labelled, "tens") == lines(0, 10, 20, 30)
    done = run("verify", labelled, "--json")
    assert done.returncode == 1
    (damage,) = json.loads(done.stdout)["damages"]
    assert damage["path"] == str(sorted(labelled.glob("*.relations"))[1])
    assert run("index", labelled).stderr.endswith(b"indexes built: 1\n")
    assert run("verify", labelled).returncode == 0
    assert f"indexes built: {sealed}\n".encode() in run("index", labelled, "--rebuild").stderr


# repair


def test_a_sound_store_needs_no_repair(segments: Path) -> None:
    """It is said, and that is all."""
    assert well("repair", segments) == b"nothing to repair\n"
    assert json.loads(well("repair", segments, "--json"))["mended"] == []


def test_repair_without_anybody_to_ask(segments: Path) -> None:
    """Without --yes and without a terminal, only what would be done is said: exit code 1, and no file is changed."""
    flip(segments_in(segments)[1], 1500)
    before = {name: data for name, (data, _) in snapshot(segments).items()}
    done = run("repair", segments)
    assert done.returncode == 1
    assert b"empty records stand in for those that are lost; 1 record lost" in done.stdout
    assert done.stderr == b"aquipu: nothing was changed; give --yes to have it done\n"
    assert {name: data for name, (data, _) in snapshot(segments).items()} == before


def test_repair(segments: Path) -> None:
    """One record is lost and said to be, the damaged bytes are kept, and all the others are there."""
    second = segments_in(segments)[1]
    offset, header, _ = frames_in(segments, int(second.stem))[3]
    flip(second, offset + 100)
    held = second.read_bytes()[offset : offset + header.size]
    done = json.loads(well("repair", segments, "--yes", "--json"))
    (mended,) = done["mended"]
    lost = header.first_sequence
    assert (done["path"], done["done"], done["lost_records"]) == (str(segments), True, 1)
    assert (mended["path"], mended["offset"], mended["bytes"]) == (str(second), offset, header.size)
    assert (mended["lost_from"], mended["lost_before"]) == (lost, lost + 1)
    assert Path(mended["kept_in"]).read_bytes() == held
    assert well("cat", segments) == b"".join(LINES[:lost] + LINES[lost + 1 :])
    assert json.loads(well("find", segments, "aquipu:lost", "--json"))["sequence"] == lost
    assert run("verify", segments).returncode == 0
    well("append", segments, input=b"more\n")


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1)])
def test_repair_asks_on_a_terminal(segments: Path, answer: bytes, code: int) -> None:
    """The plan is shown before the question, and only a yes has it done."""
    flip(segments_in(segments)[1], 1500)
    with terminal() as (screen, near):
        process = subprocess.Popen(
            [*COMMAND, "repair", segments], stdin=near, stdout=subprocess.PIPE, stderr=near, env=ENVIRONMENT
        )
        os.close(near)
        screen.wait_for(b"Repair it so? [y/N] ")
        assert b"1 record lost" in screen.seen
        screen.type(answer)
        process.communicate()
        assert process.returncode == code
    assert run("verify", segments).returncode == code


# installation

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if {missing!r} in (name, name.partition(".")[0]):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
sys.argv[0] = "aquipu"
from aquipu.__main__ import main
main()
"""


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_packages_of_the_extra(missing: str) -> None:
    """One line says what to install; that is a usage error and no traceback."""
    done = subprocess.run([sys.executable, "-c", BLOCKER.format(missing=missing)], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == f"aquipu: the command line needs {missing}: pip install 'aquipu[cli]'\n".encode()


def test_a_missing_module_of_another_kind_is_not_hidden() -> None:
    """What is not of the extra is a broken installation, and must be seen whole."""
    done = subprocess.run([sys.executable, "-c", BLOCKER.format(missing="aquipu.cli")], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"No module named 'aquipu.cli'" in done.stderr


def test_the_engine_does_not_load_the_command_line() -> None:
    """Who imports aquipu pays nothing for typer and rich, and does not need them."""
    code = "import sys, aquipu; print(sorted({'typer', 'rich', 'click', 'aquipu.cli'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_the_command_is_installed(store: Path) -> None:
    """`aquipu` is the same as `python -m aquipu`."""
    script = Path(sys.executable).parent / "aquipu"
    assert subprocess.run([script, "cat", store], capture_output=True, check=True).stdout == SAMPLE
