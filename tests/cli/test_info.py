"""info, verify and repair: what they say of a sound store and of a damaged one."""

from __future__ import annotations

import io
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aquipu.cli.forms.shown import local_time, nanoseconds_of
from aquipu.local.format.names import MANIFEST
from tests.cli.support import COMMAND, ENVIRONMENT, LINES, READING, SAMPLE, run, terminal, well
from tests.support import flip, frames_in, segments_in, snapshot

# info and verify


def test_a_path_that_is_no_utf8(tmp_path: Path) -> None:
    """Each JSON object shows its bytes as text, so every reader of JSON takes it: of the store, of
    a torn tail, of what is damaged and of what is kept.
    """
    store = tmp_path / os.fsdecode(b"st\xffre")
    well("append", "--raw", store, input=SAMPLE)
    shown = f"{tmp_path}/st\\xffre"
    assert json.loads(well("info", store, "--json"))["path"] == shown
    flip(segments_in(store)[0], 100)
    for command in ("verify", "repair", "repair --yes"):
        printed = run(*command.split()[:1], store, "--json", *command.split()[1:]).stdout.decode()
        assert "\\ud" not in printed
        answer = json.loads(printed)
        (found,) = answer["damages"] if command == "verify" else answer["mended"]
        assert answer["path"] == shown
        assert found["path"].startswith(shown)
    assert found["kept_in"].startswith(shown)


def test_info_tells_what_a_store_holds(tmp_path: Path) -> None:
    """The object that info --json prints has the documented fields, and they are true."""
    began = datetime.now(UTC)
    well("append", "--raw", tmp_path / "store", input=SAMPLE)
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
        "compressed",
        "writer",
    ]
    assert info["path"] == str(tmp_path / "store")
    assert bytes.fromhex(info["store_id"]) == (tmp_path / "store" / MANIFEST).read_bytes()[16:32]
    assert info["format_version"] == 1
    assert (info["first_sequence"], info["next_sequence"], info["records"], info["segments"]) == (
        0,
        40,
        40,
        1,
    )
    assert info["bytes"] == sum(file.stat().st_size for file in (tmp_path / "store").iterdir())
    first, last = (datetime.fromisoformat(info[name]) for name in ("first_time", "last_time"))
    assert began <= first <= last <= ended
    assert info["clean"] is True
    assert info["torn_tail"] is None
    assert info["holds"] == {}
    assert info["writer"] is None


def test_info_in_words(segments: Path) -> None:
    """Without --json the same stands there for people, a line for each."""
    info = json.loads(well("info", segments, "--json"))
    words = well("info", segments).decode()
    for line in (
        f"path            {segments}",
        "records         40",
        "sequences       0 to 39",
        f"segments        {info['segments']}",
        f"first record    {local_time(nanoseconds_of(info['first_time']))}",
        "written by      nobody",
        "closed cleanly  yes",
        "torn tail       none",
        "holds           none",
    ):
        assert f"{line}\n" in words


def test_verify_counts_what_it_has_read(segments: Path) -> None:
    """The object that verify --json prints has the documented fields, and they are true of several
    segments.
    """
    verdict = json.loads(well("verify", segments, "--json"))
    files = segments_in(segments)
    assert verdict == {
        "path": str(segments),
        "next_sequence": 40,
        "records": 40,
        "frames": 41,  # one for each append, and the mark of the close
        "segments": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "damages": [],
        "torn_tail": None,
        "writer": None,
    }
    assert well("cat", "--raw", segments) == SAMPLE


def test_verify_writes_large_numbers_so_that_people_can_read_them(tmp_path: Path) -> None:
    """2000 lines are reported as 2,000 records."""
    well("append", "--raw", tmp_path / "store", input=b"\n" * 2000)
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
    """Bytes that were never promised are not part of what is read; info and verify say that they
    are there.
    """
    segment = segments_in(store)[0]
    size = segment.stat().st_size
    segment.write_bytes(segment.read_bytes() + b"half a commit")
    if command == "cat":
        assert well("cat", "--raw", store) == SAMPLE
        return
    found = well(command, store)
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
    """Damage where opening looks: every command has exit code 1, and verify names file, offset and
    reason.
    """
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
    done = run("append", "--raw", store, input=b"more\n")
    assert done.returncode == 1
    assert f"aquipu: {segment} is damaged at offset 64: ".encode() in done.stderr
    assert segment.read_bytes() == held


def test_flipped_bits_in_sealed_segments(segments: Path) -> None:
    """Damage where opening does not look: verify finds the first of each segment, and still counts
    the records.
    """
    second, third = segments_in(segments)[1:3]
    flip(second, 1500)
    flip(third, 700)
    done = run("verify", segments, "--json")
    assert done.returncode == 1
    verdict = json.loads(done.stdout)
    assert [damage["path"] for damage in verdict["damages"]] == [str(second), str(third)]
    assert verdict["records"] == 40


def test_cat_gives_every_record_before_the_damage(segments: Path) -> None:
    """The frame that does not check ends it with exit code 1; what stands before that frame is all
    there.
    """
    second = segments_in(segments)[1]
    offset, header, _ = frames_in(segments, int(second.stem))[3]
    flip(second, offset + 100)
    done = run("cat", "--raw", segments)
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


# repair


def test_a_sound_store_needs_no_repair(segments: Path) -> None:
    """It is said, and that is all."""
    assert well("repair", segments) == b"nothing to repair\n"
    assert json.loads(well("repair", segments, "--json"))["mended"] == []


def test_repair_without_anybody_to_ask(segments: Path) -> None:
    """Without --yes and without a terminal, only what would be done is said: exit code 1, and no
    file is changed.
    """
    flip(segments_in(segments)[1], 1500)
    before = {name: data for name, (data, _) in snapshot(segments).items()}
    done = run("repair", segments)
    assert done.returncode == 1
    assert b"empty records stand in for those that are lost; 1 record lost" in done.stdout
    assert done.stderr == b"aquipu: nothing was changed; give --yes to have it done\n"
    assert {name: data for name, (data, _) in snapshot(segments).items()} == before


def test_repair(segments: Path) -> None:
    """One record is lost and named, the damaged bytes are kept, and all the others are there."""
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
    assert well("cat", "--raw", segments) == b"".join(LINES[:lost] + LINES[lost + 1 :])
    assert json.loads(well("find", segments, "aquipu:lost", "--json"))["sequence"] == lost
    assert run("verify", segments).returncode == 0
    well("append", "--raw", segments, input=b"more\n")


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1)])
def test_repair_asks_on_a_terminal(segments: Path, answer: bytes, code: int) -> None:
    """The plan is shown before the question, and only a yes has it done."""
    flip(segments_in(segments)[1], 1500)
    with terminal() as (screen, near):
        process = subprocess.Popen(
            [*COMMAND, "repair", segments],
            stdin=near,
            stdout=subprocess.PIPE,
            stderr=near,
            env=ENVIRONMENT,
        )
        os.close(near)
        screen.wait_for(b"Repair it so? [y/N] ")
        assert b"1 record lost" in screen.seen
        screen.type(answer)
        process.communicate()
        assert process.returncode == code
    assert run("verify", segments).returncode == code
