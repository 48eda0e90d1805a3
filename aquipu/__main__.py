"""``aquipu`` and ``python -m aquipu``: the command line, or one line that says what it needs."""

from __future__ import annotations

import sys

_EXTRA = frozenset({"click", "rich", "typer"})


def main() -> None:
    """Run the command line.

    Without the packages of the extra ``cli``: exit code 2 and how to get them.
    """
    try:
        from aquipu.cli.main import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        from aquipu.cli.streams.missing import MissingPackageError

        missing = MissingPackageError("the command line needs", error.name, "cli")
        sys.stderr.write(f"aquipu: {missing}\n")
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
