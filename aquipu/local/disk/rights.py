"""The rights of the files that are made: which users may read and write them."""

from __future__ import annotations

import os
from contextlib import suppress
from grp import getgrgid, getgrnam
from pwd import getpwuid
from stat import S_IMODE, S_ISGID
from typing import NamedTuple

_OF_GROUP = 0o070


class Rights(NamedTuple):
    """The rights and the group of the files that are made, whatever the umask."""

    mode: int
    """Rights of a file; a directory may be entered in addition where it may be read."""
    group: int | None
    """Number of the group; None leaves it to the system."""
    owner: int | None = None
    """Number of the user, if these are the rights of another file; only root gives files away."""

    @classmethod
    def of(cls, mode: int, group: str | None) -> Rights:
        """Return these rights for the group of this name. LookupError for an unknown group."""
        if group is None:
            return cls(mode, None)
        try:
            return cls(mode, getgrnam(group).gr_gid)
        except KeyError:
            raise LookupError(f"there is no group {group}") from None

    @classmethod
    def like(cls, found: os.stat_result) -> Rights:
        """Return the rights, the group and the owner of a file."""
        return cls(S_IMODE(found.st_mode), found.st_gid, found.st_uid)

    def give(self, file: str | int) -> None:
        """Give a file these rights and the group, if this user owns it."""
        self._give(file, directory=False)

    def give_directory(self, path: str) -> None:
        """Give a directory these rights and the group, if this user owns it.

        It goes on handing its group down, and begins to with a group of these rights.
        """
        self._give(path, directory=True)

    def _give(self, file: str | int, *, directory: bool) -> None:
        found = os.stat(file)
        if found.st_uid != os.geteuid():
            return
        mode = self.mode
        owner = found.st_uid if self.owner is None or os.geteuid() else self.owner
        group = found.st_gid if self.group is None else self.group
        if (found.st_uid, found.st_gid) != (owner, group):
            try:
                os.chown(file, owner, group)
            except PermissionError:
                if self.owner is None:
                    raise
                mode &= ~_OF_GROUP  # what was for that group is not for another
        if directory:  # a user who may read a file may enter
            mode |= (mode & 0o444) >> 2
            mode |= S_ISGID if self.group is not None else found.st_mode & S_ISGID
        if S_IMODE(found.st_mode) != mode:
            os.chmod(file, mode)


def rights_of(path: str) -> tuple[str, str, str]:
    """Return the rights of a file in octal, its owner and its group, by their names if they have.

    Raises OSError.
    """
    found = os.stat(path)
    owner, group = str(found.st_uid), str(found.st_gid)
    with suppress(KeyError):
        owner = getpwuid(found.st_uid).pw_name
    with suppress(KeyError):
        group = getgrgid(found.st_gid).gr_name
    return f"{S_IMODE(found.st_mode):04o}", owner, group


def has_attributes(path: str) -> bool:
    """Return whether a file has more rights data than its mode and owner.

    That is an access list, or attributes that its user gave it.
    """
    try:
        return any(not name.startswith("security.") for name in os.listxattr(path))
    except (AttributeError, OSError):  # the system, or the file system, has no such thing
        return False
