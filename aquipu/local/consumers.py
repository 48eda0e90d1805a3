"""What followers ask of a log that this process writes."""

from __future__ import annotations

from typing import Protocol

from aquipu.errors import RecordNotWrittenError
from aquipu.local.disk.disk import Disk
from aquipu.local.read.follow import Followed, Recent
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.write.publisher import Publisher
from aquipu.reading import Face, Follow
from aquipu.runtime.handoff import Handoff


class Writing(Protocol):
    """The log, as far as they ask for it."""

    path: str
    disk: Disk
    handoff: Handoff
    next_sequence: int

    @property
    def first_sequence(self) -> int:
        """Sequence of the first record kept."""

    @property
    def generation(self) -> bytes:
        """The one that the log is in."""

    def published(self) -> Snapshot:
        """Return what is acknowledged to every caller; from any thread."""

    async def check_there(self, generation: bytes, sequence: int) -> None:
        """Raise PositionLostError unless what was read up to there is there."""


class EngineFollowed(Followed):
    """A log that this process writes, as its followers see it."""

    def __init__(self, engine: Writing, publisher: Publisher, face: Face) -> None:
        self._engine = engine
        self._publisher = publisher
        self._face = face
        self.path, self.disk, self.handoff = engine.path, engine.disk, engine.handoff
        self.windows = publisher.windows

    def check(self) -> None:
        self._face.check_owner()

    @property
    def first_sequence(self) -> int:
        return self._engine.first_sequence

    @property
    def acknowledged(self) -> int:
        return self._publisher.acknowledged

    @property
    def generation(self) -> bytes:
        return self._engine.generation

    async def move(self, generation: bytes, sequence: int) -> bytes:
        await self._engine.check_there(generation, sequence)
        return self.generation

    def admits(self, start: int) -> bool:
        if start > self._engine.next_sequence:
            raise RecordNotWrittenError(self.path, start, self._engine.next_sequence)
        return True

    def recent(self, sequence: int) -> Recent | None:
        return self._publisher.recent(sequence)

    def look(self, indexed: bool) -> Snapshot:
        return self._engine.published()

    async def news(self, sequence: int) -> bool:
        return await self._publisher.news()

    def joined(self, follower: Follow) -> None:
        self._publisher.joined(follower)

    def left(self, follower: Follow) -> None:
        self._publisher.left(follower)
