"""What is said when a package of an extra is not installed."""

from __future__ import annotations

from aquipu.errors import needed


class MissingPackageError(Exception):
    """What was asked for needs a package that is not installed."""

    def __init__(self, what: str, package: str | None, extra: str) -> None:
        super().__init__(what, package, extra)
        self.what, self.package, self.extra = what, package, extra

    def __str__(self) -> str:
        return f"{self.what} {needed(self.package, self.extra)}"
