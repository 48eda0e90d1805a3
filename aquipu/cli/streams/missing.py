"""What is said when a package of an extra is not installed."""

from __future__ import annotations


class MissingPackageError(Exception):
    """What was asked for needs a package that is not installed."""

    def __init__(self, what: str, package: str | None, extra: str) -> None:
        super().__init__(what, package, extra)
        self.what, self.package, self.extra = what, package, extra

    def __str__(self) -> str:
        # of a checkout, because no index has the package
        return (
            f"{self.what} {self.package}, which is not installed: in the checkout of aquipu, "
            f"pip install -e '.[{self.extra}]'"
        )
