"""Which requests a rule means, by method and path. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rule:
    """Requests by method and path.

    For example: ``Rule("POST PUT", "/documents/*")``; ``Rule("*", "/health", audited=False)``.

    ``methods`` are words, ``*`` is every method, and GET means HEAD too, which runs the same
    handler. In ``path`` a ``*`` stands for any characters, slashes among them; nothing else is
    special, and the whole path must match.

    That path is the one that the router of the application sees: decoded, and without a
    ``root_path`` or the prefix under which the application is mounted. So a rule is written as the
    routes beside it are. A rule that audits is held against every other spelling of the path as
    well that leads to the same handler, so that no client can choose one that it misses; a rule
    that leaves out is not.
    """

    methods: str = "*"
    path: str = "*"
    audited: bool = True
    _methods: frozenset[str] = field(init=False, repr=False, compare=False)
    _pieces: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        methods = set(self.methods.upper().replace(",", " ").split())
        if not methods:
            raise ValueError('a rule names methods, or "*" for every one')
        if not self.path.startswith(("/", "*")):
            raise ValueError(f"the path of a rule begins with / or *, not as {self.path!r} does")
        if "GET" in methods:
            methods.add("HEAD")
        object.__setattr__(self, "_methods", frozenset(methods))
        object.__setattr__(self, "_pieces", tuple(self.path.split("*")))

    def matches(self, method: str, path: str) -> bool:
        """Return whether this request is meant."""
        return ("*" in self._methods or method in self._methods) and _fits(self._pieces, path)


def _fits(pieces: tuple[str, ...], path: str) -> bool:
    """Return whether the pieces stand in the path in order, the first and the last at its ends."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return path == first
    at, end = len(first), len(path) - len(last)
    if end < at or not path.startswith(first) or not path.endswith(last):
        return False
    for piece in pieces[1:-1]:
        at = path.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True
