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


@dataclass(frozen=True)
class Mutant:
    """A wrong variant, and the part of the hunt that found it when it was written: it comes first, the others behind it."""

    part: str
    edits: tuple[Edit, ...]


def found_by(part: str, *edits: Edit) -> Mutant:
    """Most mutants have but one edit."""
    return Mutant(part, edits)


MUTANTS: dict[str, Mutant] = {
    "acknowledges before the sync": found_by(  # which comes with the next commit
        "power cuts, Always",
        Edit(
            "journal.py",
            "        if prepared.sync:\n            self._sync()\n        return self.landing()",
            "        self._owes = prepared.sync\n"
            "        if prepared.sync:\n            self.synced_sequence = self.next_sequence\n"
            "        return self.landing()",
        ),
        Edit(
            "journal.py",
            "        self._refuse_if_failed()\n        if prepared.frame is not None:\n"
            "            self._append(prepared.frame, prepared.records, prepared.time, durable=prepared.sync)",
            '        self._refuse_if_failed()\n        if getattr(self, "_owes", False):\n            self._sync()\n'
            "        if prepared.frame is not None:\n"
            "            self._append(prepared.frame, prepared.records, prepared.time, durable=False)",
        ),
    ),
    "takes the watermark as if its own sync had returned": found_by(
        "power cuts, EveryN",
        Edit(
            "journal.py",
            "            owes_sync=commit.sync,\n            first_sequence=self.next_sequence,\n            time=time,\n"
            "            watermark=self.synced_sequence,",
            "            owes_sync=commit.sync,\n            first_sequence=self.next_sequence,\n            time=time,\n"
            "            watermark=self.next_sequence + len(commit.payloads),",
        ),
    ),
    "never syncs a directory": found_by(
        "power cuts, Always", Edit("durable.py", "        disk.sync_directory(path)\n", "        pass\n")
    ),
    "repeats a failed fdatasync": found_by(
        "forgotten pages",
        Edit(
            "durable.py",
            '    except OSError as error:\n        raise OutcomeUnknown("fdatasync", error) from error',
            "    except OSError:\n        disk.sync(descriptor)",
        ),
    ),
    "EveryN counts one too many": found_by(
        "power cuts, EveryN",
        Edit("policy.py", "return unsynced + arriving >= self.n", "return unsynced + arriving > self.n"),
    ),
    "believes a short write": found_by(
        "short writes", Edit("disk.py", "            while done < size:", "            while False:")
    ),
    "cuts the tail at the first bad frame, whatever a later watermark proves": found_by(
        "flips",
        Edit("recovery.py", "            if header.watermark > walk.sequence:", "            if False:"),
    ),
    "leaves lengths and timestamps out of the checksum": found_by(
        "flips",
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
    "takes zeros for what was written": found_by(
        "power cuts, Always",
        Edit(
            "frame.py",
            "        if extend(self.seed, body) != header.body_check:\n",
            '        if extend(self.seed, body) != header.body_check and body.strip(b"\\0"):\n',
        ),
    ),
    "takes a segment of another store": found_by(
        "flips",
        Edit("layout.py", '    return extend(0, store_id + first_sequence.to_bytes(8, "little"))', "    return 0"),
        Edit("layout.py", "        if its_store != store_id or its_first != first_sequence:\n", "        if False:\n"),
        Edit("recovery.py", "    if before is not None and before.link != header.link:\n", "    if False:\n"),
    ),
    "lets a cancelled caller take its neighbours along": found_by(
        "model",
        Edit("waiter.py", "        if future is None or future.done():\n", "        if future is None:\n"),
        Edit(
            "writing.py", "            self._loop.call_soon(self._resume, told)\n            raise\n", "            raise\n"
        ),
    ),
    "trusts a footer unchecked": found_by(
        "flips",
        Edit(
            "layout.py",
            "len(data) != footer_bytes(data) or not _is_sound(data, seed):",
            "len(data) != footer_bytes(data):",
        ),
    ),
    "takes the mark of a clean close for synced": found_by(
        "forgotten pages",
        Edit(
            "recovery.py",
            "        rewritten = _write_again(disk, descriptor, findings)\n",
            "        rewritten = 0 if findings.marked else _write_again(disk, descriptor, findings)\n",
        ),
    ),
    "takes what it reads after a failed sync for synced": found_by(
        "forgotten pages",
        Edit(
            "recovery.py",
            "    start = contents.unproven_from(findings.watermark)\n",
            "    start = contents.end\n",
        ),
    ),
    "seals before the successor has its name": found_by(
        "power cuts, Always",
        Edit(
            "journal.py",
            "        spare, self._spare = self._spare, None\n        successor",
            "        old.seal()\n        spare, self._spare = self._spare, None\n        successor",
        ),
    ),
    "names a segment before its header is on the disk": found_by(
        "power cuts, Always",
        Edit(
            "segment.py",
            "            file.write(header.encode())\n            file.sync()\n",
            "            file.write(header.encode())\n",
        ),
    ),
    "takes a successor with frames for an empty one": found_by(
        "power cuts, Always",
        Edit("segment.py", '        if piece.strip(b"\\0"):\n            return False\n', ""),
    ),
    "knows an empty successor only without zeros": found_by(
        "power cuts, Always",
        Edit("recovery.py", "if is_unwritten(disk, descriptor) else None", "if disk.size(descriptor) == 64 else None"),
    ),
    "syncs only its own bytes when others wait": found_by(
        "power cuts, EveryN",
        Edit("segment.py", "        covers_all = durable and not self.dirty\n", "        covers_all = durable\n"),
        Edit("journal.py", "        if self._active.dirty:\n            try:", "        if False:\n            try:"),
    ),
    "removes segments before the manifest says so": found_by(
        "model",
        Edit(
            "journal.py",
            "        manifest = self._manifest._replace(first_sequence=first_sequence)\n",
            "        manifest = self._manifest._replace(first_sequence=first_sequence)\n"
            "        self._past.let_go(first_sequence)\n"
            "        while self._past.sweep():\n            pass\n",
        ),
    ),
    "takes what a purge has left for a part of the log": found_by(
        "power cuts, EveryN",
        Edit(
            "recovery.py",
            "    firsts = [first for first in firsts if first >= manifest.first_sequence]\n",
            "",
        ),
    ),
    "passes over a hold": found_by("model", Edit("journal.py", "decide(self.holds().values())", "decide(())")),
    "takes a damaged hold for none": found_by(
        "flips",
        Edit(
            "bookmark.py",
            "        raise CorruptionError(whole_path, 0, str(damage)) from None\n",
            "        return None\n",
        ),
    ),
    "keeps half a commit when the disk is full": found_by(
        "errors",
        Edit(
            "journal.py",
            "            self._cut_back()\n            raise StoreFullError",
            "            raise StoreFullError",
        ),
    ),
    "saves a cursor without a sync": found_by(
        "power cuts, Always",
        Edit(
            "durable.py",
            "        sync(disk, descriptor)\n        disk.rename(made, path)\n",
            '        if not path.endswith(".cursor"):\n            sync(disk, descriptor)\n'
            "        disk.rename(made, path)\n",
        ),
    ),
    "gives a cursor its name without a sync of the directory": found_by(
        "power cuts, Always",
        Edit(
            "durable.py",
            '    sync_directory(disk, path.rpartition("/")[0])\n',
            '    if not path.endswith(".cursor"):\n        sync_directory(disk, path.rpartition("/")[0])\n',
        ),
    ),
    "writes a cursor over the old one": found_by(
        "power cuts, Always",
        Edit(
            "bookmark.py",
            'process_id(), next(_numbers))}"\n',
            'process_id(), next(_numbers))}"\n'
            '    if file_name.endswith(".cursor"):\n        made = f"{path}/{file_name}"\n',
        ),
    ),
    "tells that a cursor is saved when its sync has failed": found_by(
        "forgotten pages",
        Edit(
            "cursor.py",
            "            raise StoreUnavailableError(self._path, action, reason) from unknown.error\n",
            "            assert reason\n",
        ),
    ),
    "takes a damaged cursor for none": found_by(
        "flips",
        Edit(
            "bookmark.py",
            "    except Damage as damage:\n",
            '    except Damage as damage:\n        if file_name.endswith(".cursor"):\n            return None\n',
        ),
    ),
    "takes the cursor of another name": found_by(
        "flips",
        Edit("layout.py", "    return extend(0, store_id + file_name.encode())", "    return extend(0, store_id)"),
    ),
    "believes the end of a table unchecked": found_by(
        "flips",
        Edit(
            "postings.py",
            '        if len(data) < TRAILER_BYTES or extend(seed, data[:-4]) != int.from_bytes(data[-4:], "little"):\n',
            "        if len(data) < TRAILER_BYTES:\n",
        ),
    ),
    "takes a damaged block of a table for one without the label": found_by(
        "flips",
        Edit(
            "finding.py",
            "                return among(table)\n            except (Damage, OSError):\n",
            "                return among(table)\n            except Damage:\n"
            '                self.distrust(extent)\n                return array("I")\n            except OSError:\n',
        ),
    ),
    "never builds a damaged table anew": found_by(
        "flips",
        Edit(
            "finding.py",
            "            self._tables.pop(extent.first_sequence, None)\n        self._due(extent)\n",
            "            self._tables.pop(extent.first_sequence, None)\n",
        ),
    ),
    "believes the table of another segment": found_by(
        "flips",
        Edit("relations.py", "table_path(extent), extent.header.seed\n", "table_path(extent), 0\n"),
        Edit("relations.py", "_pieces(blocks, outline, extent.header.seed, pace))", "_pieces(blocks, outline, 0, pace))"),
        Edit(
            "relations.py",
            "        if (outline.next_sequence, outline.link) != (next_sequence, link):\n",
            "        if False:\n",
        ),
    ),
    "takes a segment with labels for one without": found_by(
        "power cuts, Always",
        Edit(
            "indexer.py",
            "                empty = known and self._labelled < extent.first_sequence\n",
            "                empty = known\n",
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


def hunted(place: Path, first: str) -> tuple[bool, str]:
    """Whether the hunt in this copy, which begins with this part, finds violations; and what it says."""
    hunt = subprocess.run(
        [sys.executable, "-m", "tests.faults.hunt", first],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    return hunt.returncode == 1, hunt.stdout + hunt.stderr
