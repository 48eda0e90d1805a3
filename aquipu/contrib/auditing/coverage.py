"""Which requests of an application are audited, and which rules have matched none."""

from __future__ import annotations

from logging import getLogger
from typing import Generic, TypeVar

from aquipu.contrib.auditing.audit import Audit
from aquipu.contrib.auditing.rule import Rule

R = TypeVar("R")

REQUESTS_PER_RULE = 100
"""After so many requests, or at the end of the service, a rule that has matched none of them is
said.
"""

_logger = getLogger("aquipu.contrib.audit")


class Coverage(Generic[R]):
    """Which requests of one application are audited.

    A rule that matches none of them is said in the log, once.
    """

    def __init__(self, audit: Audit[R]) -> None:
        self._audit = audit
        self._requests = 0
        self._never: list[Rule] | None = list(audit.rules)  # None: it has been said

    def covers(self, method: str, path: str, *spellings: str) -> bool:
        """Return `Audit.covers` of the next request, and count the request."""
        if self._never:
            self._note(self._audit.decisive(method, path, *spellings))
        return self._audit.covers(method, path, *spellings)

    def _note(self, decisive: Rule | None) -> None:
        self._never = [rule for rule in self._never or () if rule != decisive]
        self._requests += 1
        if self._requests == REQUESTS_PER_RULE:
            self.say()

    def say(self) -> None:
        """Say which rules have matched nothing: so many requests have passed, or no more come."""
        if self._requests:
            for rule in self._never or ():
                _logger.warning(
                    "%r has decided about none of %s; a rule names the path as the routes of its "
                    "application do, without a root_path or the prefix under which it is mounted, "
                    "and the first that matches decides",
                    rule,
                    "the only request so far"
                    if self._requests == 1
                    else f"{self._requests} requests so far",
                )
            self._never = None
