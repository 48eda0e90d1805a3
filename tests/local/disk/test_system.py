"""The process, and the children it makes."""

from __future__ import annotations

import os
import subprocess
import sys

from aquipu.local.disk.system import process_id


def test_the_process_names_itself() -> None:
    """process_id is the pid of this process."""
    assert process_id() == os.getpid()


def test_a_child_is_told_of_its_fork() -> None:
    """What is registered with at_fork runs in the child, and only there."""
    script = """
import os
from aquipu.local.disk.system import at_fork
told = []
at_fork(lambda: told.append("child"))
pid = os.fork()
if pid == 0:
    os._exit(len(told))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 []\n"
