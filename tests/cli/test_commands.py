"""append and cat: on real log lines, with signals, pipes and terminals."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, Signals
from subprocess import CompletedProcess

import pytest

from aquipu.cli.streams.console import PIECE_BYTES
from aquipu.cli.streams.lines import LINE_BYTES_MAX
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock
from aquipu.local.format.frame import Flag
from tests.cli.support import (
    COMMAND,
    ENVIRONMENT,
    LINES,
    LOG,
    SAMPLE,
    appending,
    in_shell,
    run,
    send,
    spawn,
    terminal,
    well,
)
from tests.support import data_in, flip, frames_in, segments_in, snapshot

# append and cat


def test_the_sample_has_the_shape_of_its_source() -> None:
    """The sample must keep what makes it hard: CRLF line ends, and none after the last line."""
    assert len(LINES) == 40
    assert all(line.endswith(b"\r\n") for line in LINES[:-1])
    assert not LINES[-1].endswith((b"\r", b"\n"))


def test_real_log_lines_come_back_as_they_were(tmp_path: Path) -> None:
    """With --raw a record is a line with its line end, so what cat writes is the input, byte for
    byte.
    """
    appended = spawn("append", "--raw", tmp_path / "store", input=SAMPLE)
    assert appended.returncode == 0
    assert appended.stdout == b""
    assert appended.stderr == b"40 records appended, last sequence 39, SYNCED\n"
    cat = spawn("cat", "--raw", tmp_path / "store")
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
        pytest.param(
            b"one\rstill one\x0b\x0c\x1c\x85\r\ntwo\n\rthree", 3, id="only-a-line-feed-ends-a-line"
        ),
        pytest.param(bytes(range(256)) * 3, 4, id="bytes-that-are-no-text"),
        pytest.param(b"x" * 600_000 + b"\n" + b"y" * 300_000, 2, id="lines-longer-than-a-read"),
    ],
)
def test_any_input_comes_back_as_it_was(tmp_path: Path, text: bytes, records: int) -> None:
    """Whatever the bytes are: cat gives them back, and there is a record for each line."""
    well("append", "--raw", tmp_path / "store", input=text)
    assert well("cat", "--raw", tmp_path / "store") == text
    assert len(data_in(tmp_path / "store")) == records


@pytest.mark.parametrize(
    "append", [pytest.param(run, id="a-file"), pytest.param(spawn, id="a-pipe")]
)
def test_a_long_input_is_stored_in_pieces(
    tmp_path: Path, append: Callable[..., CompletedProcess[bytes]]
) -> None:
    """An input larger than one read is appended read by read, and no line is torn where two reads
    meet.
    """
    text = (SAMPLE + b"\r\n") * (2 * PIECE_BYTES // len(SAMPLE) + 1)
    assert append("append", "--raw", tmp_path / "store", input=text).returncode == 0
    assert data_in(tmp_path / "store") == io.BytesIO(text).readlines()


def test_a_file_of_empty_lines(tmp_path: Path) -> None:
    """The shortest lines make the largest commits: one read holds more records than a store's
    buffer takes by default.
    """
    done = run("append", "--raw", tmp_path / "store", input=b"\n" * 300_000)
    assert (done.returncode, done.stderr) == (
        0,
        b"300,000 records appended, last sequence 299999, SYNCED\n",
    )
    assert well("cat", "--raw", tmp_path / "store") == b"\n" * 300_000


def test_appending_again_goes_on_behind_the_last_record(store: Path) -> None:
    """The last line has the last sequence of the store, and how many records this run stored."""
    done = run("append", "--raw", store, input=b"one more\n")
    assert done.stderr == b"1 record appended, last sequence 40, SYNCED\n"
    assert well("cat", "--raw", store) == SAMPLE + b"one more\n"


def test_no_input_makes_an_empty_store(tmp_path: Path) -> None:
    """An input without a byte is no error: the store is there and says that it is empty."""
    done = run("append", "--raw", tmp_path / "store")
    assert (done.returncode, done.stderr) == (0, b"0 records appended, no sequence yet, SYNCED\n")
    assert well("cat", "--raw", tmp_path / "store") == b""
    info = json.loads(well("info", tmp_path / "store", "--json"))
    assert (info["records"], info["first_time"], info["last_time"]) == (0, None, None)
    assert well("verify", tmp_path / "store").startswith(b"0 records in ")


@pytest.mark.parametrize(
    ("policy", "at_once"),
    [("always", True), ("every:39/none", True), ("every:64/none", False), ("os", False)],
)
def test_every_policy_stores_the_same(tmp_path: Path, policy: str, at_once: bool) -> None:
    """A policy decides whether a commit is synced at once, not what is stored; at the end
    everything is synced.
    """
    done = run("append", "--raw", tmp_path / "store", "--sync-policy", policy, input=SAMPLE)
    assert done.stderr == b"40 records appended, last sequence 39, SYNCED\n"
    assert well("cat", "--raw", tmp_path / "store") == SAMPLE
    _, commit, _ = frames_in(tmp_path / "store")[0]
    assert commit.records == 39  # all lines of the one read; the last one has no end
    assert bool(commit.flags & Flag.OWES_SYNC) is at_once


def test_a_line_as_long_as_a_record_may_be(tmp_path: Path) -> None:
    """The limit of a line counts its line end, and a line of just that length is stored."""
    text = b"x" * (LINE_BYTES_MAX - 1) + b"\n"
    well("append", "--raw", tmp_path / "store", input=text)
    assert well("cat", "--raw", tmp_path / "store") == text


def test_a_line_that_is_too_long(tmp_path: Path) -> None:
    """It is one clear error that names the line; what stands before it stays stored."""
    done = run(
        "append",
        "--raw",
        tmp_path / "store",
        input=b"one\ntwo\n" + b"x" * (LINE_BYTES_MAX + 1) + b"\nfour\n",
    )
    assert done.returncode == 2
    last, error = done.stderr.decode().splitlines()
    assert last == "2 records appended, last sequence 1, SYNCED"
    assert error.startswith(
        f"aquipu: line 3 of standard input is longer than {LINE_BYTES_MAX:,} bytes"
    )
    assert well("cat", "--raw", tmp_path / "store") == b"one\ntwo\n"


def test_a_torn_tail_is_cut_by_the_next_append_and_said_so(store: Path) -> None:
    """What opening has cut off, and where it is kept, is said on standard error."""
    segment = segments_in(store)[0]
    segment.write_bytes(segment.read_bytes() + b"half a commit")
    done = run("append", "--raw", store, input=b"more\n")
    assert done.returncode == 0
    cut, last = done.stderr.decode().splitlines()
    (kept,) = store.glob("*.cut-*")
    assert cut.startswith("aquipu: a torn tail of 13 bytes was cut")
    assert str(kept) in cut
    assert kept.read_bytes() == b"half a commit"
    assert last == "1 record appended, last sequence 40, SYNCED"


def test_a_file_system_that_is_full(store: Path) -> None:
    """Without space exit code 4 and one line say so; nothing of the refused commit is kept, and
    nothing else is lost.
    """
    before = segments_in(store)[0].stat().st_size
    blocks = before // 512 + 2
    done = in_shell(
        f'ulimit -f {blocks}; exec "$@"', "append", "--raw", store, input=b"x" * 4096 + b"\n"
    )
    assert done.returncode == 4
    last, error = done.stderr.decode().splitlines()
    assert last == "0 records appended, last sequence 39, SYNCED"
    assert "no space" in error
    assert well("cat", "--raw", store) == SAMPLE


# signals


@pytest.mark.parametrize("signal", [SIGINT, SIGTERM, SIGHUP])
def test_a_signal_loses_nothing_that_was_read(tmp_path: Path, signal: Signals) -> None:
    """A signal ends it as the end of the input does: all is stored and synced, and the exit code
    tells the signal.
    """
    with appending(tmp_path / "store", "--raw") as (process, screen):
        send(process, b"one\r\ntwo\nhalf a li")
        screen.wait_for(b"2 records")
        process.send_signal(signal)
        assert "3 records appended, last sequence 2, SYNCED" in screen.wait_for_end()
        assert process.wait() == 128 + signal
    assert well("cat", "--raw", tmp_path / "store") == b"one\r\ntwo\nhalf a li"
    assert json.loads(well("info", tmp_path / "store", "--json"))["clean"] is True


@pytest.mark.parametrize("signal", [SIGINT, SIGHUP])
def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path, signal: Signals) -> None:
    """A job in the background (nohup, or a shell's &) is not ended by what it is to ignore."""
    with appending(tmp_path / "store", "--raw", ignore=signal) as (process, screen):
        send(process, b"one\n")
        screen.wait_for(b"1 record")
        process.send_signal(signal)
        send(process, b"two\n")
        screen.wait_for(b"2 records")
        process.communicate()
        assert process.returncode == 0
    assert well("cat", "--raw", tmp_path / "store") == b"one\ntwo\n"


def test_a_line_of_a_slow_pipe_is_stored_at_once(tmp_path: Path) -> None:
    """A line waits for no other: it is in the store while the pipe is still open, and a kill does
    not take it.
    """
    with appending(tmp_path / "store", "--raw", "--sync-policy", "os") as (process, screen):
        send(process, LINES[0])
        screen.wait_for(b"1 record")
        process.send_signal(SIGKILL)
        assert process.wait() == -SIGKILL
    assert well("cat", "--raw", tmp_path / "store") == LINES[0]
    assert json.loads(well("info", tmp_path / "store", "--json"))["clean"] is False


def test_ctrl_c_while_it_waits_for_the_lock(store: Path) -> None:
    """Before anything was read there is nothing to store: it ends quietly, and the store is as it
    was.
    """
    before = snapshot(store)
    lock = Lock.take(Disk(), str(store), shared=True)
    assert lock is not None
    command = [sys.executable, "-c", WAITING, str(store)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
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
from aquipu.local.disk.disk import Disk

def told(self, path, *, shared=False, try_lock_directory=Disk.try_lock_directory):
    held = try_lock_directory(self, path, shared=shared)
    print("waiting" if held is None else "held", flush=True)
    return held

Disk.try_lock_directory = told
sys.argv = ["aquipu", "append", sys.argv[1]]
main()
"""


def test_ctrl_c_while_cat_cannot_write(tmp_path: Path) -> None:
    """Nothing holds Ctrl-C up, not even an output that nobody reads; and it is no traceback."""
    well("append", "--raw", tmp_path / "store", input=b"x" * 1_000_000)
    with subprocess.Popen(
        [*COMMAND, "cat", tmp_path / "store"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        process.send_signal(SIGINT)
        assert process.wait() in (-SIGINT, 130)
        assert process.stderr is not None
        assert process.stderr.read() == b""


# pipes and terminals


def test_a_pipe_that_is_closed_while_cat_writes(tmp_path: Path) -> None:
    """`aquipu cat S | head -1` ends quietly and well."""
    well("append", "--raw", tmp_path / "store", input=(SAMPLE + b"\r\n") * 100)
    with subprocess.Popen(
        [*COMMAND, "cat", tmp_path / "store"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == LINES[0]
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize(
    "arguments", [["cat"], ["info"], ["info", "--json"], ["verify"], ["verify", "--json"]]
)
def test_a_pipe_that_was_closed_before_anything_was_written(
    store: Path, arguments: list[str]
) -> None:
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
        return subprocess.run(
            [*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize(("command", "code"), [("append", 0), ("cat", 2)])
def test_standard_error_that_nobody_reads(tmp_path: Path, command: str, code: int) -> None:
    """What cannot be said there changes neither what is done nor the exit code."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, command, "--raw", tmp_path / "store"], input=SAMPLE, stderr=writing, check=False
    )
    os.close(writing)
    assert done.returncode == code
    if command == "append":
        assert well("cat", "--raw", tmp_path / "store") == SAMPLE


def test_a_device_that_takes_no_more(store: Path) -> None:
    """An output that cannot be written is an input/output error, said in one line."""
    done = in_shell('exec "$@" > /dev/full', "cat", store)
    assert done.returncode == 4
    assert "standard output" in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("command", "redirection"),
    [("append", "<&-"), ("cat", ">&-"), ("info", ">&-"), ("verify", ">&-")],
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
    """On a terminal, append counts records, bytes and records a second; the last line comes after
    that.
    """
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
        process = subprocess.Popen(
            [*COMMAND, "append", tmp_path / "store"], stdin=source, stderr=near, env=ENVIRONMENT
        )
        os.close(near)
        assert "12.0/12.0 kB" in screen.wait_for_end()
        assert process.wait() == 0


def test_lines_that_are_typed_are_not_painted_over(tmp_path: Path) -> None:
    """When standard input is a terminal as well, there is no bar; the end of the input is Ctrl-D,
    as ever.
    """
    with terminal() as (screen, near):
        process = subprocess.Popen(
            [*COMMAND, "append", "--raw", tmp_path / "store"],
            stdin=near,
            stderr=near,
            env=ENVIRONMENT,
        )
        os.close(near)
        screen.type(b"typed\n\x04")
        text = screen.wait_for_end()
        assert process.wait() == 0
    assert "records/s" not in text
    assert "1 record appended, last sequence 0, SYNCED" in text
    assert well("cat", "--raw", tmp_path / "store") == b"typed\n"


def test_verify_shows_a_bar_on_a_terminal(segments: Path) -> None:
    """On a terminal, verify shows on standard error how many bytes it has read; the verdict goes to
    standard output.
    """
    with terminal() as (screen, near):
        process = subprocess.Popen(
            [*COMMAND, "verify", segments], stdout=subprocess.PIPE, stderr=near, env=ENVIRONMENT
        )
        os.close(near)
        text = screen.wait_for_end()
        verdict, _ = process.communicate()
    size = sum(segment.stat().st_size for segment in segments_in(segments))
    assert f"{size / 1000:.1f}/{size / 1000:.1f} kB" in text
    assert verdict.startswith(b"40 records in ")


def test_no_bar_without_a_terminal(segments: Path) -> None:
    """A pipe or a file gets no bar: nothing stands on standard error when all is well."""
    assert run("verify", segments).stderr == b""
