"""What importing aquipu costs: the whole process, against one that imports only what aquipu stands
on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.contender import scratch
from benchmarks.measure import Contender, Progress, Sample, interleaved
from benchmarks.report import Report, Table, Target, milliseconds, times
from benchmarks.settings import Settings

AQUIPU = "import aquipu"
BASIS = "import asyncio, aiofiles, anyio"
_NOTHING = "pass"


def run(settings: Settings, progress: Progress) -> Report:
    with scratch(settings) as compiled:
        for code in (AQUIPU, BASIS):
            _seconds(code, compiled)  # what is compiled once is compiled here
        contenders = {
            code: _process(code, settings.processes, compiled) for code in (AQUIPU, BASIS, _NOTHING)
        }
        rounds = interleaved(contenders, settings.rounds, progress)
    rows = [
        [
            f"python -c '{code}'",
            milliseconds(rounds.median(code, "seconds")),
            times(rounds.ratio(code, BASIS, "seconds")),
        ]
        for code in contenders
    ]
    return Report(
        "imports",
        tables=[
            Table("A whole process that only imports", ["", "median", "against the second"], rows)
        ],
        targets=[
            Target(
                f"{AQUIPU}, against {BASIS}",
                rounds.ratio(AQUIPU, BASIS, "seconds"),
                1.2,
                "×",
                at_least=False,
            )
        ],
        rounds=rounds,
    )


def _process(code: str, repetitions: int, compiled: Path) -> Contender:
    def contender() -> Sample:
        return {"seconds": median(_seconds(code, compiled) for _ in range(repetitions))}

    return contender


def _seconds(code: str, compiled: Path) -> float:
    """With compiled modules, as installed packages have them, also where the environment or the
    rights prevent that.
    """
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    environment["PYTHONPYCACHEPREFIX"] = str(compiled)
    began = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return perf_counter() - began
