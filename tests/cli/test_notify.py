"""serve under a service manager: it says when it is ready, and when it is about to end."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from socket import AF_UNIX, SOCK_DGRAM, socket

import pytest

from aquipu import Store
from aquipu.local.disk.sockets import tell_manager
from tests.cli.served import ended, serving

PATIENCE = 60.0


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_serve_says_how_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """READY when the socket is there, STOPPING when it is told to end: sd_notify(3)."""
    with socket(AF_UNIX, SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE)
        name = f"{tmp_path}/notify" if kind == "path" else f"@{tmp_path}/notify"
        manager.bind(name.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        with serving(tmp_path, listens=False) as process:
            assert manager.recv(100) == b"READY=1"

            async def connect() -> None:
                async with Store.connect(f"unix:{tmp_path}/socket") as store:
                    await store.append(b"one")

            asyncio.run(connect())
            process.send_signal(signal.SIGTERM)
            assert manager.recv(100) == b"STOPPING=1"
            ended(process, 0)


@pytest.mark.parametrize("name", ["/nowhere/notify", "@nobody", "", "vsock:2:3"])
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """That is no failure: most processes are started by hand."""
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    tell_manager("READY=1")


def test_a_manager_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds nobody up."""
    with socket(AF_UNIX, SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/notify")
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
        for _ in range(2000):
            tell_manager("STATUS=" + "x" * 1000)
