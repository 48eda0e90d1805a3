"""What can go wrong with an archive, as a tree::

    ArchiveError
    ├── ArchiveUnavailableError  the object store does not answer, or refuses
    ├── ArchiveRefusedError      what is there does not go with this store
    ├── ArchiveTakenError        another writer has taken over
    ├── ArchiveDamagedError      an object is missing, or is not what was put
    ├── NothingBeforeError       no record lies before the time that was asked for
    └── NoArchiveError           there is none at this place

No message holds a credential, or a record's data.
"""

from __future__ import annotations

from aquipu.errors import AquipuError


class ArchiveError(AquipuError):
    """The root of what an archive raises; ``url`` names the place, ``reason`` says what is wrong.

    The store itself is never harmed.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"


class ArchiveUnavailableError(ArchiveError):
    """The object store does not answer, or refuses: no permission, or wrong credentials, say."""

    def __str__(self) -> str:
        return (
            f"the archive {self.url} cannot be reached: {self.reason}; nothing was lost; mend that,"
            " and do this again"
        )


class ArchiveRefusedError(ArchiveError):
    """What is at the place does not go together with this store. Nothing was written."""

    def __str__(self) -> str:
        return (
            f"{self.url} is no place for an archive of this store: {self.reason}; nothing was "
            "written; give another prefix, a new one for example"
        )


class ArchiveTakenError(ArchiveError):
    """Another writer has taken the archive over, and this one has stopped.

    The store goes on without an archive of its own.
    """

    def __str__(self) -> str:
        return (
            f"the archive {self.url} was taken over: {self.reason}, and nothing more of this store "
            "goes there; nothing was lost; end the other one first if it should not have it, then "
            "open this store again, or begin another archive"
        )


class ArchiveDamagedError(ArchiveError):
    """An object of the archive is missing, or its bytes are not those that were put."""

    def __str__(self) -> str:
        return (
            f"the archive {self.url} is damaged: {self.reason}; nothing else was lost; restore "
            "what comes before (--until), or archive a store that is alive to another place"
        )


class NothingBeforeError(ArchiveError):
    """No record of the archive lies before the time up to which it is to be restored."""

    def __str__(self) -> str:
        return (
            f"{self.url} holds no record from before then: {self.reason}; nothing was written; give"
            " a later time, or a sequence"
        )


class NoArchiveError(ArchiveError):
    """There is no archive at this place."""

    def __str__(self) -> str:
        return (
            f"{self.url} is no archive: {self.reason}; nothing was written; give the address with "
            "which it was archived, bucket and prefix"
        )
