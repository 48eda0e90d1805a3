"""An Azure Blob server of its own, for as long as it is wanted: Azurite, of the npm registry."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from time import sleep
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

CONTAINER = "logs"
PACKAGE = "azurite@3"
_ACCOUNT = "devstoreaccount1"  # the one that Azurite has
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def azurite(directory: Path) -> Path:
    """Install the server into a directory, and return its program."""
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(directory), PACKAGE]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return directory / "node_modules" / ".bin" / "azurite-blob"


@contextmanager
def azurite_server(program: Path, directory: Path) -> Iterator[dict[str, Any]]:
    """Give the options by which `Archive` reaches a server that has the container `CONTAINER`."""
    port = _free_port()
    command = [str(program), "--blobPort", str(port), "--location", str(directory), "--silent"]
    command += ["--skipApiVersionCheck", "--disableTelemetry"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                assert process.poll() is None, "the server has ended by itself"
                try:
                    _make_container(port)
                    break
                except ConnectionError:
                    sleep(0.1)
            yield {
                "endpoint": f"http://127.0.0.1:{port}/{_ACCOUNT}",
                "account_name": _ACCOUNT,
                "account_key": _KEY,
            }
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _make_container(port: int) -> None:
    """Make the container, with a request signed as Azure wants it (shared key)."""
    date = formatdate(usegmt=True)
    said = f"x-ms-date:{date}\nx-ms-version:2021-08-06"
    resource = f"/{_ACCOUNT}/{_ACCOUNT}/{CONTAINER}\nrestype:container"
    text = "PUT" + "\n" * 12 + f"{said}\n{resource}"
    key = base64.b64decode(_KEY)
    signature = base64.b64encode(hmac.digest(key, text.encode(), hashlib.sha256)).decode()
    request = Request(
        f"http://127.0.0.1:{port}/{_ACCOUNT}/{CONTAINER}?restype=container",
        method="PUT",
        data=b"",
        headers={
            "x-ms-date": date,
            "x-ms-version": "2021-08-06",
            "Authorization": f"SharedKey {_ACCOUNT}:{signature}",
            "Content-Type": "",
        },
    )
    try:
        urlopen(request).close()
    except HTTPError:
        raise
    except URLError as error:
        raise ConnectionError(str(error)) from error
