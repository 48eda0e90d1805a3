"""Groups of commits in every situation, made by calls of their owner."""

from __future__ import annotations

from aquipu.commit.buffer import Pending
from aquipu.commit.group import GroupCommit
from aquipu.engine import Commit, CommitResult
from aquipu.policy import Stage, SyncPolicy
from aquipu.record import Receipt

MIB = 1024 * 1024


def group_of(
    policy: SyncPolicy, *, next_sequence: int = 0, records: int = 100, size: int = 1000
) -> GroupCommit[str]:
    """A group in which waiters are names."""
    return GroupCommit(
        policy,
        next_sequence=next_sequence,
        synced_sequence=next_sequence,
        buffer_records=records,
        buffer_bytes=size,
    )


def add(group: GroupCommit[str], *names: str, stage: Stage | None = None, now: int = 0) -> None:
    """Accept a record for each of these waiters, named by itself."""
    for name in names:
        assert group.add(name.encode(), len(name), (), stage or group.policy.stage, name, now)


def add_batch(
    group: GroupCommit[str], name: str, *payloads: bytes, stage: Stage = Stage.FLUSHED
) -> None:
    assert group.add_batch(batch_of(name, *payloads, stage=stage), 0)


def batch_of(
    name: str,
    *payloads: bytes,
    stage: Stage = Stage.FLUSHED,
    labels: tuple[str, ...] = (),
    key: tuple[bytes, int] | None = None,
) -> Pending[str]:
    of_each = dict.fromkeys(range(len(payloads)), labels) if labels else {}
    return Pending(payloads, sum(map(len, payloads)), of_each, stage, name, True, key)


def submitted(group: GroupCommit[str]) -> Commit[str]:
    commit = group.submit()
    assert commit is not None
    return commit


def complete(group: GroupCommit[str]) -> list[Receipt]:
    """Complete the commit under way: it has reached the stage that it owes."""
    commit = group.under_way
    assert commit is not None
    first = group.next_sequence
    end = first + len(commit)
    completed = group.complete(CommitResult(end, end if commit.sync else group.synced_sequence, 0))
    assert completed is commit
    return list(completed.receipts())


def wait(group: GroupCommit[str], *names: str) -> None:
    """Records of one byte that find no room line up."""
    for name in names:
        assert not group.add(name.encode(), 1, (), Stage.FLUSHED, name, 0)
        group.wait(Pending([name.encode()], 1, {}, Stage.FLUSHED, name, False))


def taken(group: GroupCommit[str], *names: str, now: int = 0) -> list[str]:
    """Which of these the forming commit takes by itself."""
    assert group.forming is not None
    return [name for name in names if group.forming.take(name.encode(), name, now)]


def send(group: GroupCommit[str], *names: str, stage: Stage | None = None) -> bool:
    """A commit of these records, there and back; whether it was synced."""
    add(group, *names, stage=stage)
    synced = submitted(group).sync
    complete(group)
    return synced


def nobody_is_gone(waiter: str) -> bool:
    return False
