"""An object store in memory, and one whose answers are not to be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError

from aquipu.archive.bucket import READS

FAULTS = (
    "refused",
    "lost before",
    "lost behind",
    "said to be there",
    "truncated",
    "swapped",
    "listing lags",
)
"""What can go wrong with a request; the first three of a put, and of what only asks."""


_PUT = datetime(2026, 11, 30, tzinfo=UTC)


class Found:
    """What `get` returns."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def bytes(self) -> bytes:
        return self._data


class MemoryBucket:
    """Objects in memory, by the calls of obstore that a `Bucket` makes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        """The names of all objects that were asked for."""
        self.puts: dict[str, list[bytes]] = {}
        """All bytes that were ever put under a name."""
        self.deletes: list[int] = []
        """How many objects each request was to remove."""

    def put(self, key: str, body: bytes, *, mode: str, use_multipart: bool) -> None:
        assert mode == "create"
        assert not use_multipart
        if key in self.objects:
            raise AlreadyExistsError(f"Object at location {key} already exists")
        self.objects[key] = bytes(body)
        self.puts.setdefault(key, []).append(bytes(body))

    def get(self, key: str) -> Found:
        self.asked.append(key)
        if key not in self.objects:
            raise FileNotFoundError(key)
        return Found(self.objects[key])

    def get_range(self, key: str, *, start: int, end: int) -> bytes:
        return self.get(key).bytes()[start:end]

    def list(self, prefix: str, *, chunk_size: int) -> Iterator[list[dict[str, Any]]]:
        names = sorted(name for name in self.objects if name.startswith(prefix + "/"))
        for begin in range(0, len(names), chunk_size):
            some = names[begin : begin + chunk_size]
            yield [
                {"path": name, "size": len(self.objects[name]), "last_modified": _PUT}
                for name in some
            ]

    def delete(self, keys: Sequence[str]) -> None:
        self.deletes.append(len(keys))
        for key in keys:
            self.objects.pop(key, None)


class FaultyBucket(MemoryBucket):
    """Answers wrongly, a share of the time; what it holds is right, and is answered before long."""

    def __init__(self, random: Random, share: float, faults: tuple[str, ...] = FAULTS) -> None:
        super().__init__()
        self._random = random
        self._faults = faults
        self.share = share
        self._listed: dict[str, bytes] = {}
        self.counts: dict[str, int] = {}
        self._wrong: Counter[str] = Counter()

    def put(self, key: str, body: bytes, *, mode: str, use_multipart: bool) -> None:
        fault = self._fault("refused", "lost before", "lost behind", "said to be there")
        if fault in ("refused", "lost before"):
            raise GenericError(self._random.choice(("409 Conflict", "500", "503 Slow Down")))
        super().put(key, body, mode=mode, use_multipart=use_multipart)
        if fault == "lost behind":
            raise GenericError("operation timed out")
        if fault == "said to be there":
            raise AlreadyExistsError(f"Object at location {key} already exists")

    def get(self, key: str) -> Found:
        fault = self._fault("refused", "truncated", "swapped")
        if fault == "refused":
            raise GenericError("connection closed before message completed")
        data = super().get(key).bytes()
        if fault is not None and self._wrong[key] < READS - 1:  # as often is believed
            self._wrong[key] += 1
            return self._not_quite(fault, data)
        del self._wrong[key]
        return Found(data)

    def _not_quite(self, fault: str, data: bytes) -> Found:
        if fault == "truncated":
            return Found(data[: self._random.randrange(len(data) + 1)])
        return Found(self._random.choice(list(self.objects.values())))

    def list(self, prefix: str, *, chunk_size: int) -> Iterator[list[dict[str, Any]]]:
        fault = self._fault("refused", "listing lags")
        if fault == "refused":
            raise GenericError("503")
        now = self.objects
        if fault == "listing lags":
            self.objects = self._listed
        try:
            found = list(super().list(prefix, chunk_size=chunk_size))
        finally:
            self.objects = now
        if self._random.random() < 0.5:
            self._listed = dict(now)
        return iter(found)

    def delete(self, keys: Sequence[str]) -> None:
        if self._fault("refused") is not None:
            super().delete(keys[: self._random.randrange(len(keys) + 1)])
            raise GenericError("500")
        super().delete(keys)

    def _fault(self, *possible: str) -> str | None:
        if self._random.random() >= self.share:
            return None
        fault = self._random.choice([one for one in possible if one in self._faults] or [None])
        if fault is not None:
            self.counts[fault] = self.counts.get(fault, 0) + 1
        return fault


class DeniedBucket(MemoryBucket):
    """Lets nobody put anything, and says more than it should."""

    def put(self, key: str, body: bytes, *, mode: str, use_multipart: bool) -> None:
        raise PermissionDeniedError(
            f"Error performing PUT https://bucket/{key}?X-Amz-Credential=AKIAEXAMPLE: 403\n\n"
            "Debug source:\nsecret-of-the-bucket"
        )
