"""wrk, the load generator in C, where it is installed (Debian: apt-get install wrk)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from benchmarks.measure import Sample

_SCRIPT = """
wrk.method = "POST"
wrk.body = '%s'
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
   local bad = summary.errors.status + summary.errors.connect
      + summary.errors.read + summary.errors.timeout
   io.write(string.format("\\nfigures %%d %%d %%d %%d %%d\\n",
      bad, latency:percentile(50), latency:percentile(99), summary.requests, summary.duration))
end
"""


def is_installed() -> bool:
    return shutil.which("wrk") is not None


def post(url: str, body: bytes, connections: int, seconds: int, directory: Path) -> Sample:
    """POST this JSON on so many connections: how many answers there were a second, and how long
    they took.
    """
    script = directory / "post.lua"
    script.write_text(_SCRIPT % body.decode())
    command = [
        "wrk",
        "-t",
        "1",
        "-c",
        str(connections),
        "-d",
        f"{seconds}s",
        "--timeout",
        "30s",
        "-s",
        str(script),
        url,
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    bad, p50, p99, answers, duration = map(int, shown.partition("figures ")[2].split())
    if bad:
        raise RuntimeError(f"{bad} of {answers} requests failed")
    return {"p50": p50 / 1e6, "p99": p99 / 1e6, "requests/s": answers / (duration / 1e6)}
