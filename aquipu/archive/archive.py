"""Archive: where the copy of a log in an object store is, and how it is reached."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from math import isfinite
from typing import TYPE_CHECKING, Any

from aquipu.archive.errors import ArchiveRefusedError, ArchiveUnavailableError, NoArchiveError
from aquipu.archive.places.address import checked_url, directory_of
from aquipu.archive.places.directory import DirectoryStore
from aquipu.archive.places.hidden import secrets_in, unusable
from aquipu.errors import needed
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import is_nowhere
from aquipu.local.disk.paths import is_within
from aquipu.local.disk.system import environment, process_id

if TYPE_CHECKING:
    from aquipu.archive.bucket import Bucket

_ENDPOINTS = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    *("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
)  # in the environment, as obstore reads it
_PLAIN = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP")
_TIMEOUT = "120s"  # of one request: a segment on a slow line
_used_by: set[int] = set()  # the process that has used obstore: a fork takes no threads along
_RETRIES = {"max_retries": 1}  # further ones are ours, with the rule of doubt


class Archive:
    """A place in an object store for the copy of a log; immutable, compares by its attributes.

    ::

        archive = Archive("s3://bucket/audit", region="eu-central-1")

    """

    __slots__ = ("_compress", "_hold", "_interval", "_options", "_url")

    def __init__(
        self,
        url: str,
        *,
        interval: float = 1.0,
        hold: bool = False,
        compress: bool = False,
        **options: Any,
    ) -> None:
        """Name the place.

        Args:
            url: ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX``, ``az://CONTAINER/PREFIX`` or
                ``file:///DIRECTORY``, in which %20 is a space and %25 a percent sign. One prefix
                holds one archive.
            interval: seconds between two looks at what is new: a machine that is lost takes at most
                what came since, and while one upload takes.
            hold: whether no purge, and no retention, lets go of what is not archived: a hold of the
                store, whose name begins with ``archive.``, goes along. It stays when the archive is
                given up, until it is released.
            compress: whether full segments are compressed before they go up, with the package
                zstandard, which reading them takes as well. A store that is restored has them so.
            options: what `obstore.store.from_url` takes for this kind of store: ``region``,
                ``endpoint``, ``access_key_id``, ``client_options``, … Without, credentials are
                those of the environment. They are never shown.

        Raises TypeError or ValueError for what is no such place.
        """
        self._url = checked_url(url)
        if not isinstance(interval, (int, float)) or isinstance(interval, bool):
            raise TypeError(f"interval is in seconds, not {type(interval).__name__}")
        if not (interval > 0 and isfinite(interval)):
            raise ValueError(f"interval is a positive number of seconds, not {interval}")
        for name, value in (("hold", hold), ("compress", compress)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} is True or False, not {value!r:.100}")
        if options and url.startswith("file:"):
            raise TypeError(f"an archive in files has no option {min(options)}")
        self._interval = float(interval)
        self._hold, self._compress = hold, compress
        self._options = dict(options)

    @property
    def url(self) -> str:
        """Place of the archive."""
        return self._url

    @property
    def interval(self) -> float:
        """Seconds between two looks at what is new."""
        return self._interval

    @property
    def hold(self) -> bool:
        """Whether what is not archived is kept from being purged."""
        return self._hold

    @property
    def compress(self) -> bool:
        """Whether full segments are compressed before they go up."""
        return self._compress

    def bucket_for(self, store: str) -> Bucket:
        """Reach the object store for this store: not called by users.

        Raises ArchiveRefusedError for an archive in files that lies within the store,
        ArchiveUnavailableError where nothing can be compressed, and what `bucket` raises.
        """
        if self._compress and find_spec("zstandard") is None:
            raise ArchiveUnavailableError(self._url, _needs("zstandard", "compress"))
        if self.directory is not None and is_within(self.directory, store):
            raise ArchiveRefusedError(self._url, f"it lies within the store, {store}")
        if self.directory is not None:
            try:
                Disk().make_directories(self.directory)  # for this user alone
                DirectoryStore.at(self.directory).remove_unfinished()
            except OSError as error:
                raise ArchiveUnavailableError(self._url, error.strerror or str(error)) from None
        return self.bucket()

    def bucket(self) -> Bucket:
        """Reach the object store: not called by users.

        Raises ArchiveUnavailableError; NoArchiveError for a directory that is not there.
        """
        from aquipu.archive.bucket import FORKED, Bucket, shown

        if self.directory is not None:
            return Bucket(self._url, self._files(self.directory))
        try:
            from obstore.store import from_url
        except ImportError:
            raise ArchiveUnavailableError(self._url, _needs("obstore", "archive")) from None
        process = process_id()
        if _used_by - {process}:
            raise ArchiveUnavailableError(self._url, FORKED)
        _used_by.add(process)
        secrets = secrets_in(self._options, environment())
        wrong = unusable(self._options, environment())
        if wrong is not None:
            raise ArchiveUnavailableError(self._url, wrong)
        try:
            store = from_url(self._url, **self._given())
        except Exception as error:
            reason = shown(str(error), secrets)
            if "Account must be specified" in reason:
                reason = (
                    "no storage account is given: account_name=NAME (--option account_name=NAME),"
                    " or AZURE_STORAGE_ACCOUNT_NAME in the environment"
                )
            raise ArchiveUnavailableError(self._url, reason) from None
        return Bucket(self._url, store, secrets, process)

    def _files(self, directory: str) -> DirectoryStore:
        try:
            return DirectoryStore.at(directory)
        except OSError as error:
            if is_nowhere(error):
                raise NoArchiveError(self._url, "there is no such directory") from None
            raise ArchiveUnavailableError(self._url, error.strerror or str(error)) from None

    @property
    def directory(self) -> str | None:
        """Path of an archive in files."""
        return directory_of(self._url)

    def _given(self) -> dict[str, Any]:
        given: dict[str, Any] = {"retry_config": _RETRIES, **self._options}
        plain = _is_plain(self._options, environment())  # as it was asked for
        client = {"timeout": _TIMEOUT, "allow_http": plain, **given.get("client_options", {})}
        given["client_options"] = client
        return given

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Archive) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((self._url, self._interval))

    def _key(self) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return self._url, self._interval, self._hold, self._compress, self._options

    def __repr__(self) -> str:
        options = "".join(f", {name}=…" for name in sorted(self._options))
        flags = f"hold={self._hold}, compress={self._compress}"
        return f"Archive({self._url!r}, interval={self._interval}, {flags}{options})"


def _is_plain(options: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Return whether HTTP is asked for: by the endpoint that is given, or by the environment."""
    given = [str(value) for name, value in options.items() if "endpoint" in name.lower()]
    if any(environment.get(name, "").lower() in ("true", "1") for name in _PLAIN):
        return True
    found = given or [environment.get(name, "") for name in _ENDPOINTS]
    return any(one.startswith("http://") for one in found)


def _needs(package: str, extra: str) -> str:
    return f"that needs the package {needed(package, extra)}"
