"""Small wrong variants of the engine: a suite of tests is worth what it catches, and each of these must be found.

A mutant is a few lines of the real source, replaced. They are applied to a copy of the checkout, where `tests.faults.hunt`,
a short run of the whole suite, must find violations. A mutant whose lines are no longer in the source is an error: it has
to be written anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
_SECONDS = 300.0


@dataclass(frozen=True)
class Edit:
    """``old`` stands exactly once in the file, and is replaced."""

    file: str
    old: str
    new: str


MUTANTS: dict[str, tuple[Edit, ...]] = {
    "acknowledges before the sync": (
        Edit(
            "journal.py",
            "        if prepared.sync:\n            self._sync()\n        return self.landing()",
            "        self._owes = prepared.sync\n"
            "        if prepared.sync:\n            self.synced_sequence = self.next_sequence\n"
            "        return self.landing()",
        ),
        Edit(
            "journal.py",
            "time, durable=prepared.sync)",
            "time, durable=False)",
        ),
        Edit(
            "journal.py",
            '        """Between commits: roll when the segment is full. Raises StoreFailedError."""\n',
            '        """Between commits."""\n        if getattr(self, "_owes", False):\n            self._sync()\n',
        ),
    ),
    "takes the watermark as if its own sync had returned": (
        Edit(
            "journal.py",
            "            owes_sync=commit.sync,\n            first_sequence=self.next_sequence,\n            time=time,\n"
            "            watermark=self.synced_sequence,",
            "            owes_sync=commit.sync,\n            first_sequence=self.next_sequence,\n            time=time,\n"
            "            watermark=self.next_sequence + len(commit.payloads),",
        ),
    ),
    "never syncs a directory": (Edit("durable.py", "        disk.sync_directory(path)\n", "        pass\n"),),
    "repeats a failed fdatasync": (
        Edit(
            "durable.py",
            '    except OSError as error:\n        raise OutcomeUnknown("fdatasync", error) from error',
            "    except OSError:\n        disk.sync(descriptor)",
        ),
    ),
    "EveryN counts one too many": (
        Edit("policy.py", "return unsynced + arriving >= self.n", "return unsynced + arriving > self.n"),
    ),
    "believes a short write": (Edit("disk.py", "            while done < size:", "            while False:"),),
    "cuts the tail at the first bad frame, whatever a later watermark proves": (
        Edit("recovery.py", "            if header.watermark > walk.sequence:", "            if False:"),
    ),
    "leaves lengths and timestamps out of the checksum": (
        Edit(
            "frame.py",
            "        body_check = extend(body_check, part)\n",
            "        body_check = extend(body_check, part[12 * len(payloads) :])\n",
        ),
        Edit(
            "frame.py",
            "        if extend(self.seed, body) != header.body_check:\n",
            "        if extend(self.seed, body[12 * header.records :]) != header.body_check:\n",
        ),
    ),
    "takes zeros for what was written": (
        Edit(
            "frame.py",
            "        if extend(self.seed, body) != header.body_check:\n",
            '        if extend(self.seed, body) != header.body_check and body.strip(b"\\0"):\n',
        ),
    ),
    "takes a segment of another store": (
        Edit("layout.py", '    return extend(0, store_id + first_sequence.to_bytes(8, "little"))', "    return 0"),
        Edit("layout.py", "        if its_store != store_id or its_first != first_sequence:\n", "        if False:\n"),
        Edit("recovery.py", "    if before is not None and before.link != header.link:\n", "    if False:\n"),
    ),
    "lets a cancelled caller take its neighbours along": (
        Edit("waiter.py", "        if future is None or future.done():\n", "        if future is None:\n"),
        Edit(
            "writing.py", "            self._loop.call_soon(self._resume, told)\n            raise\n", "            raise\n"
        ),
    ),
    "trusts a footer unchecked": (
        Edit(
            "layout.py",
            "len(data) != footer_bytes(data) or not _is_sound(data, seed):",
            "len(data) != footer_bytes(data):",
        ),
    ),
    "takes the mark of a clean close for synced": (
        Edit(
            "recovery.py",
            "        rewritten = _write_again(disk, descriptor, findings)\n",
            "        rewritten = 0 if findings.marked else _write_again(disk, descriptor, findings)\n",
        ),
    ),
    "takes what it reads after a failed sync for synced": (
        Edit(
            "recovery.py",
            "    start = contents.unproven_from(findings.watermark)\n",
            "    start = contents.end\n",
        ),
    ),
    "seals before the successor has its name": (
        Edit(
            "journal.py",
            '        successor = Segment.create(self._disk, f"{self.path}/{segment_name(self.next_sequence)}", header)\n',
            "        old.seal()\n"
            '        successor = Segment.create(self._disk, f"{self.path}/{segment_name(self.next_sequence)}", header)\n',
        ),
    ),
    "syncs only its own bytes when others wait": (
        Edit("segment.py", "        covers_all = durable and not self.dirty\n", "        covers_all = durable\n"),
        Edit("journal.py", "        if self._active.dirty:\n            try:", "        if False:\n            try:"),
    ),
    "removes segments before the manifest says so": (
        Edit(
            "journal.py",
            "        manifest = self._manifest._replace(first_sequence=first_sequence)\n",
            "        manifest = self._manifest._replace(first_sequence=first_sequence)\n"
            "        self._past.let_go(first_sequence)\n"
            "        while self._past.sweep():\n            pass\n",
        ),
    ),
    "takes what a purge has left for a part of the log": (
        Edit(
            "recovery.py",
            "    firsts = [first for first in firsts if first >= manifest.first_sequence]\n",
            "",
        ),
    ),
    "passes over a hold": (Edit("journal.py", "decide(self.holds().values())", "decide(())"),),
    "takes a damaged hold for none": (
        Edit(
            "bookmark.py",
            "        raise CorruptionError(whole_path, 0, str(damage)) from None\n",
            "        return None\n",
        ),
    ),
    "keeps half a commit when the disk is full": (
        Edit(
            "journal.py",
            "            self._cut_back()\n            raise StoreFullError",
            "            raise StoreFullError",
        ),
    ),
}


def mutate(edits: tuple[Edit, ...], place: Path) -> None:
    """Copy the package and the tests to ``place``, with these lines replaced. LookupError when they are not there."""
    for part in ("aquipu", "tests"):
        shutil.copytree(CHECKOUT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in edits:
        file = place / "aquipu" / edit.file
        source = file.read_text()
        if source.count(edit.old) != 1:
            raise LookupError(f"these lines stand not once in {edit.file}: the mutant must be written anew\n{edit.old}")
        file.write_text(source.replace(edit.old, edit.new))


def hunted(place: Path) -> tuple[bool, str]:
    """Whether the hunt in this copy finds violations, and what it says."""
    hunt = subprocess.run(
        [sys.executable, "-m", "tests.faults.hunt"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    return hunt.returncode == 1, hunt.stdout + hunt.stderr
