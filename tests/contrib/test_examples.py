"""The example services, started as they say and used over real HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

import aquipu
from aquipu import Store
from benchmarks.servers import end, free_port, wait_until_reachable
from tests.contrib.support import entries_in, labels_in

EXAMPLES = Path(aquipu.__file__).parent / "examples"
COMMANDS = {
    "fastapi_service": ["uvicorn", "aquipu.examples.fastapi_service:app", "--port", "{port}"],
    "aiohttp_service": ["aquipu.examples.aiohttp_service"],
    "flask_service": [
        *("gunicorn", "aquipu.examples.flask_service:app", "--bind", "localhost:{port}"),
        *("--threads", "8", "--no-control-socket"),
    ],
}
SCRIPTS = {"store_sshd"}
"""Tested in `tests/examples/test_openssh.py`."""
LINES_MAX = 40


@pytest.fixture(params=COMMANDS)
def service(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A service at work in the directory of the test: where to reach it, and its process."""
    port = free_port()
    command = [
        sys.executable,
        "-P",
        "-m",
        *(word.format(port=port) for word in COMMANDS[request.param]),
    ]
    environment = os.environ | {
        "PORT": str(port),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until_reachable(process, port, request.param)
        yield f"http://localhost:{port}", process
    finally:
        end(process, signal.SIGKILL)


@pytest.mark.asyncio
async def test_documents_are_signed(
    service: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Each signature is in the history of its document, and so is an attempt that was refused; the
    store is left closed.
    """
    address, process = service
    async with ClientSession(address) as client:
        for document, body, status in (
            (42, {"by": "ada"}, 201),
            (42, {"by": "bob"}, 201),
            (7, {}, 400),
        ):
            async with client.post(
                f"/documents/{document}/signatures?token=secret", json=body
            ) as response:
                assert response.status in (status, 422, 500)
                if status == 201:
                    assert await response.json() == f"{body['by']} has signed 42"
        async with client.get("/documents/42/history") as response:
            history = await response.json()
        async with client.get("/documents/8/history") as response:
            assert await response.json() == []
    assert [entry["request_body"]["text"] for entry in history] == [
        '{"by": "ada"}',
        '{"by": "bob"}',
    ]
    end(process, signal.SIGTERM)
    assert entries_in(tmp_path / "audit")[:2] == history
    assert labels_in(tmp_path / "audit") == [("document:42",), ("document:42",), ("document:7",)]
    assert "secret" not in str(entries_in(tmp_path / "audit"))
    async with Store.open(tmp_path / "audit", lock_timeout=0) as store:
        assert (store.recovery.clean, store.next_sequence) == (True, 3)


@pytest.mark.parametrize("name", [*COMMANDS, *SCRIPTS])
def test_an_example_is_short(name: str) -> None:
    """Each fits on a screen."""
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= LINES_MAX


def test_every_example_is_tested() -> None:
    """None is left out here."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} - {"__init__"} == {*COMMANDS, *SCRIPTS}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_documents_show_what_is_tested(name: str) -> None:
    """The page on services has the code of each example as it is."""
    code = (EXAMPLES / f"{name}.py").read_text().split('"""', 2)[2].strip()
    assert f"```python\n{code}\n```" in (EXAMPLES.parent / "contrib" / "README.md").read_text()
