"""Small wrong variants of the engine: a suite of tests is worth what it catches, and each of these
must be found.

A mutant replaces something in one or more functions, which are found by their names in any file of
the package (see `edit`). It is made in a copy of the checkout, where `tests.faults.hunt`, a short
run of the whole suite, must find violations. A mutant that does not fit the source any more is an
error: it has to be written anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.faults.edit import Edit, edited

CHECKOUT = Path(__file__).resolve().parent.parent.parent
_SECONDS = 1200.0


@dataclass(frozen=True)
class Mutant:
    """A wrong variant, and the part of the hunt that found it when it was written, with its seed:
    they come first, the others behind them.
    """

    part: str
    edits: tuple[Edit, ...]
    seed: int = 1


def found_by(part: str, *edits: Edit, seed: int = 1) -> Mutant:
    """Most mutants have but one edit."""
    return Mutant(part, edits, seed)


MUTANTS: dict[str, Mutant] = {
    "acknowledges before the sync": found_by(  # which comes with the next commit
        "power cuts, Always",
        Edit(
            "Journal.write",
            "if prepared.sync: self._sync()",
            "self._owes = prepared.sync\n"
            "if prepared.sync: self.synced_sequence = self.next_sequence",
        ),
        Edit(
            "Journal.write",
            "self._files.refuse_if_failed()",
            'self._files.refuse_if_failed()\nif getattr(self, "_owes", False): self._sync()',
        ),
        Edit(
            "Journal.write",
            "self._append(prepared.frame, prepared.records, prepared.time, durable=prepared.sync)",
            "self._append(prepared.frame, prepared.records, prepared.time, durable=False)",
        ),
    ),
    "takes the watermark as if its own sync had returned": found_by(
        "power cuts, EveryN",
        Edit(
            "Journal.prepare",
            "self.synced_sequence",
            "self.next_sequence + len(commit.payloads)",
        ),
    ),
    "never syncs a directory": found_by(
        "power cuts, Always", Edit("sync_directory", "disk.sync_directory(path)", "")
    ),
    "repeats a failed fdatasync": found_by(
        "forgotten pages",
        Edit(
            "sync",
            'raise OutcomeUnknown("fdatasync", error) from error',
            "disk.sync(descriptor)",
        ),
    ),
    "EveryN counts one too many": found_by(
        "power cuts, EveryN",
        Edit("EveryN.owes_sync", "unsynced + arriving >= self.n", "unsynced + arriving > self.n"),
    ),
    "believes a short write": found_by(
        "short writes", Edit("Disk._write_all", "done < size", "False")
    ),
    "cuts the tail at the first bad frame, whatever a later watermark proves": found_by(
        "flips", Edit("_judge_tail", "header.watermark > walk.sequence", "False")
    ),
    "leaves lengths and timestamps out of the checksum": found_by(
        "flips",
        Edit("encode", "extend(body_check, part)", "extend(body_check, part[12 * len(payloads):])"),
        Edit(
            "Walk.__next__",
            "extend(self.seed, body)",
            "extend(self.seed, body[12 * header.records:])",
        ),
    ),
    "takes zeros for what was written": found_by(
        "power cuts, Always",
        Edit(
            "Walk.__next__",
            "extend(self.seed, body) != header.body_check",
            'extend(self.seed, body) != header.body_check and body.strip(b"\\0")',
        ),
    ),
    "takes a segment of another store": found_by(
        "flips",
        Edit("seed_of", 'extend(0, store_id + first_sequence.to_bytes(8, "little"))', "0"),
        Edit(
            "SegmentHeader.decode", "its_store != store_id or its_first != first_sequence", "False"
        ),
        Edit("check_follows", "link != header.link", "False"),
    ),
    "lets a cancelled caller take its neighbours along": found_by(
        "model",
        Edit("resume", "future is None or future.done()", "future is None"),
        Edit("Committer._interrupted", "self._loop.call_soon(self._tick)", ""),
    ),
    "trusts a footer unchecked": found_by(
        "flips",
        Edit("SegmentSummary.decode_footer", "not is_sound(data, seed)", "False"),
    ),
    "takes the mark of a clean close for synced": found_by(
        "forgotten pages",
        Edit(
            "_mend",
            "_write_again(disk, descriptor, findings)",
            "0 if findings.marked else _write_again(disk, descriptor, findings)",
        ),
    ),
    "takes what it reads after a failed sync for synced": found_by(
        "forgotten pages",
        Edit("_write_again", "contents.unproven_from(findings.watermark)", "contents.end"),
    ),
    "seals before the successor has its name": found_by(
        "power cuts, Always",
        Edit(
            "Roller.roll",
            "spare, self._spare = self._spare, None",
            "old.seal()\nspare, self._spare = self._spare, None",
        ),
    ),
    "names a segment before its header is on the disk": found_by(
        "power cuts, Always", Edit("SegmentWriter.create", "file.sync()", "")
    ),
    "takes a successor with frames for an empty one": found_by(
        "power cuts, Always", Edit("is_unwritten", 'piece.strip(b"\\0")', "False")
    ),
    "knows an empty successor only without zeros": found_by(
        "power cuts, Always",
        Edit("_empty_header", "is_unwritten(disk, descriptor)", "disk.size(descriptor) == 64"),
    ),
    "syncs only its own bytes when others wait": found_by(
        "power cuts, EveryN",
        Edit("SegmentWriter.append", "durable and not self.dirty", "durable"),
        Edit("Journal._sync", "self._files.active.dirty", "False"),
    ),
    "removes segments before the manifest says so": found_by(
        "passing",
        Edit(
            "Keeper._begin_at",
            "self._space.use_reserve()",
            "files.sealed.drop(first_sequence)\n"
            "while files.sealed.delete(): pass\n"
            "self._space.use_reserve()",
        ),
    ),
    "takes what a purge has left for a part of the log": found_by(
        "power cuts, EveryN",
        Edit(
            "_examine",
            "firsts = [first for first in firsts if first >= manifest.first_sequence]",
            "",
        ),
    ),
    "passes over a hold": found_by(
        "model", Edit("Keeper._drop", "self.holds()", "dict[str, int]()"), seed=2
    ),
    "takes a damaged hold for none": found_by(
        "flips",
        Edit("_read", "raise CorruptionError(whole_path, 0, str(damage)) from None", "return None"),
    ),
    "keeps half a commit when the disk is full": found_by(
        "errors", Edit("Journal._append", "self._cut_back()", "")
    ),
    "leaves the successor of a refused roll named": found_by(
        "passing",
        Edit("SegmentWriter.create", "with suppress(OSError): disk.remove(path)", ""),
        Edit("Roller._forget_unused", "self._unused is not None", "False"),
    ),
    "names the next segment before one that was not begun is gone": found_by(
        "passing",
        Edit("Roller._forget_unused", "sync_directory(self._files.disk, self._files.path)", ""),
    ),
    "takes a roll that was refused for the end of the store": found_by(
        "passing",
        Edit(
            "Roller.attempt",
            "is_no_space(error) or is_passing(error)",
            "is_no_space(error)",
        ),
    ),
    "drops every sealed segment when the disk is full": found_by(
        "passing",
        Edit(
            "Keeper.make_room",
            "self._is_due = True\nself.retain()",
            "self.purge(before=self._files.active.contents.next_sequence)",
        ),
    ),
    "keeps no space for a cursor": found_by(
        "passing",
        Edit(
            "_replace",
            "_make_bookmark(disk, path, file_name, data, _RESERVES[kind])",
            "raise",
        ),
    ),
    "does not sync a cursor that it writes over on a full disk": found_by(
        "passing", Edit("write_over", "sync(disk, descriptor)", "")
    ),
    "cuts a torn tail off before what is moved is on the disk": found_by(
        "passing", Edit("move_aside", "sync(disk, kept)", "")
    ),
    "saves a cursor without a sync": found_by(
        "power cuts, Always",
        Edit("_written", "sync(disk, descriptor)", "if not hold: sync(disk, descriptor)"),
    ),
    "gives a cursor its name without a sync of the directory": found_by(
        "power cuts, Always",
        Edit(
            "write_whole",
            'sync_directory(disk, path.rpartition("/")[0])',
            'if not path.endswith(".cursor"): sync_directory(disk, path.rpartition("/")[0])',
        ),
    ),
    "writes a cursor over the old one": found_by(
        "power cuts, Always",
        Edit(
            "_make_bookmark",
            "write_whole(disk, f'{path}/{file_name}', data, unnamed=made, reserve=reserve)",
            'if file_name.endswith(".cursor"): made = f"{path}/{file_name}"\n'
            "write_whole(disk, f'{path}/{file_name}', data, unnamed=made, reserve=reserve)",
        ),
    ),
    "says that a cursor is saved when its sync has failed": found_by(
        "forgotten pages",
        Edit(
            "_changing_bookmark",
            "raise StoreUnavailableError(path, action, reason) from unknown.error",
            "assert reason",
        ),
    ),
    "saves a cursor before the log is synced": found_by(
        "power cuts, OsManaged", Edit("LocalCursor.save", "await self._log.secure(sequence)", "")
    ),
    "begins no new generation when the end is lost": found_by(
        "power cuts, OsManaged",
        Edit(
            "Generations.begin",
            "not _is_whole(was, mark.life, end, partial(_furthest, disk, path, store_id))",
            "False",
        ),
    ),
    "does not wait until the disk says that the store is open": found_by(
        "power cuts, OsManaged",
        Edit(
            "Generations._write",
            "disk.write(descriptor, [encoded_mark(self._mark, history.turn, self._store_id)], 0)\n"
            "sync(disk, descriptor)",
            "disk.write(descriptor, [encoded_mark(self._mark, history.turn, self._store_id)], 0)",
        ),
    ),
    "names a table that is not on the disk": found_by(
        "power cuts, OsManaged",
        Edit(
            "Generations._write",
            "disk.write(descriptor, [table], offset)\nsync(disk, descriptor)",
            "disk.write(descriptor, [table], offset)",
        ),
        seed=3,
    ),
    "names a compressed segment that is not on the disk": found_by(
        "power cuts, OsManaged",
        Edit(
            "replace_file",
            "disk.write(descriptor, piece, offset)\nsync(disk, descriptor)",
            "disk.write(descriptor, piece, offset)",
        ),
    ),
    "ends a compressed segment with a check of its own": found_by(
        "power cuts, OsManaged",
        Edit("packed", "check is not None", "False"),
    ),
    "takes a damaged cursor for none": found_by(
        "flips",
        Edit(
            "_read",
            "raise CorruptionError(whole_path, 0, str(damage)) from None",
            'if file_name.endswith(".cursor"): return None\n'
            "raise CorruptionError(whole_path, 0, str(damage)) from None",
        ),
    ),
    "takes the cursor of another name": found_by(
        "flips",
        Edit("_bookmark_seed", "extend(0, store_id + file_name.encode())", "extend(0, store_id)"),
    ),
    "believes the end of a table unchecked": found_by(
        "flips",
        Edit(
            "BlockIndex.decode",
            'extend(seed, data[:-4]) != int.from_bytes(data[-4:], "little")',
            "False",
        ),
    ),
    "takes a damaged block of a table for one without the label": found_by(
        "flips",
        Edit(
            "Finder.candidates",
            "try:\n"
            "    return _planned(table, wanted, known, pause)\n"
            "except (Damage, OSError):\n"
            "    self.distrust(segment)",
            "try:\n"
            "    return _planned(table, wanted, known, pause)\n"
            "except Damage:\n"
            "    self.distrust(segment)\n"
            '    return Candidates(array("I"), wanted, known.stop)\n'
            "except OSError:\n"
            "    self.distrust(segment)",
        ),
    ),
    "never builds a damaged table anew": found_by(
        "flips", Edit("Finder.distrust", "self._due(segment)", "")
    ),
    "believes the table of another segment": found_by(
        "flips",
        Edit(
            "Table.open",
            "path, seed = table_path(segment), segment.header.seed",
            "path, seed = table_path(segment), 0",
        ),
        Edit("build", "segment.header.seed", "0"),
        Edit(
            "Table.open",
            "(block_index.next_sequence, block_index.link) != (next_sequence, link)",
            "False",
        ),
    ),
    "takes a segment with labels for one without": found_by(
        "power cuts, Always",
        Edit("Indexer.look", "known and self._labelled < segment.first_sequence", "known"),
        seed=2,
    ),
    "a search by time stops at the first segment that is later": found_by(
        "power cuts, Always",
        Edit(
            "parts_between",
            "start, stop = _between(view.disk, segment, first, end, since, until)",
            "if until <= segment.earliest: break\n"
            "start, stop = _between(view.disk, segment, first, end, since, until)",
        ),
        seed=4,
    ),
    "writes what is earlier into the segment at hand": found_by(
        "power cuts, Always",
        Edit("Journal.prepare", "commit.timestamps[0] < self.last_time", "False"),
        seed=4,
    ),
    "a retention believes the clock": found_by(
        "power cuts, EveryN",
        Edit("Keeper.retain", "aged(files.sealed.sealed)", "files.sealed.sealed"),
        Edit("Keeper.retain", "elapsed_ns()", "time_ns()"),
    ),
    "an opening believes the clock": found_by(
        "power cuts, OsManaged", Edit("aging", "gap if gap <= GAP_MAX else 0", "gap")
    ),
    "locks only the lock file": found_by(
        "places",
        Edit("Lock.take", "disk.try_lock_directory(path, shared=shared)", "disk.open(path)"),
    ),
    "does not look at the directory before it acknowledges": found_by(
        "places", Edit("Journal.write", "self._files.check_place()", "")
    ),
    "does not look at the size before it appends": found_by(
        "places", Edit("Journal._append", "self._files.check_size()", "")
    ),
    "looks only whether something has the path": found_by(
        "places", Edit("Directory.wrong", "seen[:2] != self._identity", "False")
    ),
    "does not look for the files of the log": found_by(
        "places", Edit("Directory.wrong", "files(looks_at_all)", "None")
    ),
}


def sources() -> dict[str, str]:
    """Return the files of the package, by their names in it."""
    package = CHECKOUT / "aquipu"
    return {
        file.relative_to(package).as_posix(): file.read_text() for file in package.rglob("*.py")
    }


def mutate(name: str, mutant: Mutant, place: Path) -> None:
    """Copy the package and the tests to ``place``, with the edits of the mutant of this name made.

    LookupError when they do not fit the source.
    """
    changed = mutated(name, mutant, sources())
    for part in ("aquipu", "tests"):
        shutil.copytree(CHECKOUT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file, source in changed.items():
        (place / "aquipu" / file).write_text(source)


def mutated(name: str, mutant: Mutant, of: dict[str, str]) -> dict[str, str]:
    """Return the files that the mutant of this name changes, by name. LookupError as `mutate`."""
    try:
        return edited(of, mutant.edits)
    except LookupError as error:
        raise LookupError(f"the mutant {name!r} must be written anew: {error}") from None


def hunted(place: Path, mutant: Mutant, *, alone: bool = False) -> tuple[bool, str]:
    """Whether the hunt in this copy finds violations; and what it says.

    It begins with the part that found this mutant, and with ``alone`` it ends there.
    """
    hunt = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.faults.hunt",
            mutant.part,
            str(mutant.seed),
            *["alone"] * alone,
        ],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    said = f"{hunt.stdout}{hunt.stderr}exit status {hunt.returncode}"
    return hunt.returncode == 1, said
