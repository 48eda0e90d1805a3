"""The process dies; and the judge of a `log` sees what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from aquipu import Record, Stage
from aquipu.local.disk.disk import Disk
from tests.faults.crashing_disk import CHANGING, Kill, kill_in_seal, kills_of
from tests.faults.exits import EXITS
from tests.faults.kills import run
from tests.faults.log import Log
from tests.faults.oracle import Account, Acknowledgement, check
from tests.faults.plan import calls
from tests.faults.tally import Tally

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]

KILLS = 1300
SEED = 4
ALWAYS = 0
OS_MANAGED = 2


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Tally:
    """One run: many processes are killed, at calls, at random and by exits."""
    ticks: list[int] = []
    tally = run(KILLS, SEED, ticks.append, directory=str(tmp_path_factory.mktemp("kills")))
    assert sum(ticks) == KILLS or tally.violations
    return tally


def test_no_kill_takes_what_was_acknowledged(tally: Tally) -> None:
    """Nothing acknowledged is missing, nothing reads back otherwise, and every store opens again
    and goes on.
    """
    assert tally.violations == []
    assert tally.counts["SIGKILLs"] >= 300
    assert tally.counts["acknowledged before the end"] > 1000


def test_every_call_was_died_at(tally: Tally) -> None:
    """Under each policy the process died before every single call of opening, commit, roll, seal,
    mending and close.
    """
    assert tally.counts["rounds through every call"] == 1
    assert [call for call in CHANGING if not tally.counts[f"SIGKILLs before {call}"]] == []
    assert tally.counts["SIGKILLs within write"] > 0
    assert tally.counts["SIGKILLs within write_synced"] > 0
    assert tally.counts["SIGKILLs at another call than meant"] == 0


def test_the_kills_left_something_to_mend(tally: Tally) -> None:
    """What the openings afterwards found were torn tails, rolls cut short and frames that nothing
    proved.
    """
    assert tally.counts["left: a torn tail"] > 0
    assert tally.counts["left: a roll cut short"] > 0
    assert tally.counts["left: frames without a mark"] > 0


def test_a_purge_was_died_in(tally: Tally) -> None:
    """The process died at every step of a purge, and of setting a hold: the first sequence is the
    old or the new one.
    """
    for what in (
        "purges",
        "purges cut short",
        "left: files of a purge",
        "left: an unfinished bookmark",
    ):
        assert tally.counts[what] > 0, what


def test_a_cursor_and_a_table_were_died_in(tally: Tally) -> None:
    """The process died while it saved a cursor: that is the old one or the new one. And while it
    built tables: each is missing, or says what its segment says.
    """
    for what in (
        "cursors cut short",
        "left: an unfinished table",
        "tables held against their segments",
    ):
        assert tally.counts[what] > 0, what


@pytest.mark.parametrize("name", EXITS)
def test_an_exit_without_aclose(name: str, tally: Tally) -> None:
    """Each way to leave without a clean close was taken."""
    assert tally.counts[f"exits: {name}"] > 0


# the judge


def run_of(log: Log, count: int) -> tuple[list[Record], Account]:
    """The store after a faultless run of so many calls, and what that run was told."""
    found = list(log.records)
    told: list[Acknowledgement] = []
    for call in islice(calls(log.seed, log.round), count):
        for number, data in enumerate(call.payloads, call.number):
            record = Record(len(found), 1000 + len(found), data, call.relations)
            found.append(record)
            told.append(Acknowledgement(number, record.sequence, record.timestamp, Stage.SYNCED))
    return found, Account(
        told, len(told), len(log.records), (len(log.records), check(log.records)), []
    )


@pytest.fixture
def log() -> Log:
    """A store with one run behind it, in its second."""
    log = Log("store", 7, ALWAYS, round=1)
    log.records, _ = run_of(log, 10)
    log.round = 2
    return log


def a_batch(log: Log) -> tuple[int, int]:
    """The first batch of the run: how many calls come before it, and how many records it has."""
    for place, call in enumerate(calls(log.seed, log.round)):
        if len(call.payloads) > 1:
            return place, len(call.payloads)
    raise AssertionError


def verdict(log: Log, found: list[Record], told: Account, *, whole: bool = True) -> str:
    return "; ".join(log.judge(found, told, whole=whole))


def test_a_faultless_run(log: Log) -> None:
    """A run that left all that it was told is found to be without fault."""
    assert verdict(log, *run_of(log, 20)) == ""


def test_more_than_was_acknowledged(log: Log) -> None:
    """What was called and not acknowledged may be there, or not."""
    found, told = run_of(log, 20)
    assert verdict(log, found, told._replace(acknowledged=told.acknowledged[:5]), whole=False) == ""


def test_an_acknowledged_record_is_missing(log: Log) -> None:
    """The last record acknowledged is not there."""
    found, _ = run_of(log, 19)
    _, told = run_of(log, 20)
    assert "was acknowledged and is missing" in verdict(log, found, told, whole=False)


def test_an_accepted_record_is_missing(log: Log) -> None:
    """After an exit everything accepted must be there."""
    found, told = run_of(log, 20)
    assert "records were accepted" in verdict(log, found, told._replace(accepted=told.accepted + 1))


def test_half_a_batch(log: Log) -> None:
    """The records of one append_many are there or not, together."""
    place, records = a_batch(log)
    found, told = run_of(log, place + 1)
    assert f"of a batch of {records} records {records - 1} are there" in verdict(
        log, found[:-1], told._replace(acknowledged=[]), whole=False
    )


def test_a_record_of_an_earlier_life_is_gone(log: Log) -> None:
    """What was found once stays."""
    _, told = run_of(log, 0)
    assert "what was there before the run has changed" in verdict(
        log, log.records[:-1], told, whole=False
    )


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda record: record._replace(data=record.data + b"!"), "is not what was appended"),
        (lambda record: record._replace(relations=("another",)), "has other labels"),
        (
            lambda record: record._replace(sequence=record.sequence + 1),
            "the sequences are not dense",
        ),
        (
            lambda record: record._replace(timestamp=record.timestamp + 1),
            "another timestamp than its receipt",
        ),
        (lambda record: record._replace(timestamp=1), "a timestamp is lower"),
    ],
)
def test_a_record_reads_back_otherwise(
    log: Log, spoil: Callable[[Record], Record], complaint: str
) -> None:
    """Data, labels, sequence and timestamp are those that were given."""
    found, told = run_of(log, 20)
    found[-3] = spoil(found[-3])
    assert complaint in verdict(log, found, told)


def test_a_record_of_an_earlier_life_reads_back_otherwise(log: Log) -> None:
    """Also those records are compared that were there before the run."""
    found, told = run_of(log, 20)
    found[2] = found[2]._replace(data=b"another")
    assert "sequence 2 is another record" in verdict(log, found, told)


def test_a_receipt_with_another_sequence(log: Log) -> None:
    """Sequences are given in the order of the calls."""
    found, told = run_of(log, 20)
    first, *others = told.acknowledged
    wrong = told._replace(acknowledged=[first._replace(sequence=first.sequence + 1), *others])
    assert "got sequence" in verdict(log, found, wrong)


def test_acknowledged_before_the_stage(log: Log) -> None:
    """Under Always nobody is told FLUSHED who asked for nothing less."""
    found, told = run_of(log, 20)
    early = told._replace(
        acknowledged=[each._replace(stage=Stage.FLUSHED) for each in told.acknowledged]
    )
    assert "was acknowledged at stage 2 instead of 3" in verdict(log, found, early)
    log.policy = OS_MANAGED
    asked = [
        call.durability for call in islice(calls(log.seed, log.round), 20) for _ in call.payloads
    ]
    just = [
        each._replace(stage=stage or Stage.FLUSHED)
        for each, stage in zip(told.acknowledged, asked, strict=True)
    ]
    assert verdict(log, found, told._replace(acknowledged=just)) == ""


def test_the_opening_found_something_else(log: Log) -> None:
    """The opening of a run must find what the run before had left."""
    found, told = run_of(log, 20)
    assert "it was opened with next_sequence" in verdict(log, found, told._replace(opened=3))


def test_the_scan_gave_something_else(log: Log) -> None:
    """The face must give what the files hold."""
    found, told = run_of(log, 20)
    assert "scan gave something else" in verdict(
        log, found, told._replace(read=(len(log.records), 1))
    )


def test_the_log_begins_elsewhere(log: Log) -> None:
    """The first sequence is the one that the last purge told, or the one that the next was to
    bring; held is held.
    """
    found, told = run_of(log, 20)

    def begin(first: int, its_hold: int | None = None, **noted: Any) -> str:
        account = told._replace(**noted)
        kept = log.with_purged(found[first:], account, first)
        assert kept == found
        return "; ".join(log.judge(kept, account, whole=True, first=first, held=its_hold))

    after = len(log.records) + 2
    assert (
        begin(0)
        == begin(3, purging=3)
        == begin(0, purging=3)
        == begin(3, purging=3, purged=3)
        == ""
    )
    assert begin(after, purging=after, purged=3) == begin(3, purging=after, purged=3) == ""
    for first in (0, 2, 4, after):
        assert "the log begins with" in begin(first, purging=3, purged=3)
    assert "the log begins with" in begin(2, purging=3)
    assert (
        begin(0, 4, holding=4) == begin(0, None, holding=4) == begin(0, 4, holding=4, held=4) == ""
    )
    assert "the hold is on" in begin(0, None, holding=4, held=4)
    assert "the hold is on" in begin(0, 5, holding=4, held=4)
    assert "was held" in begin(5, 4, holding=4, held=4, purging=5, purged=5)


def test_the_cursor_is_elsewhere(log: Log) -> None:
    """The cursor is the one that was told to be saved last, or the one that was to be saved after
    that.
    """
    found, told = run_of(log, 20)
    log.cursor = 3

    def at(cursor: int | None, **noted: Any) -> str:
        return "; ".join(log.judge(found, told._replace(**noted), whole=True, cursor=cursor))

    assert (
        at(3)
        == at(3, saving=5)
        == at(5, saving=5)
        == at(5, saving=5, saved=5)
        == at(7, saving=7, saved=5)
        == ""
    )
    for wrong in (
        at(None),
        at(5),
        at(None, saving=5),
        at(3, saving=5, saved=5),
        at(3, saving=7, saved=5),
    ):
        assert "the cursor is" in wrong


# the moments


def test_no_call_is_left_out() -> None:
    """Every call of the disk is one to be killed at, or only reads, or is made of such calls."""
    reading = {
        *("close", "exists", "free", "list", "listen", "open", "open_stream"),
        *("read", "read_cached", "size", "try_hold", "look_into", "identity", "is_shared"),
        *(
            "pin",
            "seen",
            "whereabouts",
            "try_lock_directory",
            "permit",
            "permit_as",
            "entitle",
            "life",
        ),
        # on the loop's thread, so at no fixed moment; what it says is never needed to recover
        "publish",
    }
    made_of_others = {"sync_name", "try_remove"}
    of_backups = {"clone", "link"}  # alone: tests/local/backup cuts them short
    assert {name for name in vars(Disk) if not name.startswith("_")} == {
        *CHANGING,
        *reading,
        *made_of_others,
        *of_backups,
    }


def test_the_kills_of_a_trace() -> None:
    """Before each call; within and behind each write as well."""
    assert kills_of(["sync", "write"], 0.5) == [
        Kill(1, 0.0, "sync"),
        Kill(2, 0.0, "write"),
        Kill(2, 0.5, "write"),
        Kill(2, 1.0, "write"),
    ]


def test_the_kill_in_a_seal() -> None:
    """The footer is the write that follows the new name and the truncation."""
    roll = ["create", "write", "sync", "rename", "sync_directory", "truncate", "write", "sync"]
    assert kill_in_seal(["write", *roll]) == Kill(8, 0.5, "write")
    assert kill_in_seal(["write", "sync"]) is None


def test_a_seed_gives_the_same_calls() -> None:
    """What must be in a store follows from the seed and the number of the run alone."""
    first, again, other = (list(islice(calls(seed, 1), 50)) for seed in (1, 1, 2))
    assert first == again != other
