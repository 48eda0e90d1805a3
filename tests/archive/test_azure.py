"""The archive on a server that speaks as Azure does: part of the proof, where npm is installed."""

from __future__ import annotations

import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aquipu import Archive
from tests.archive.azurite import CONTAINER, azurite, azurite_server
from tests.archive.contract import CONTRACT, SLOW, At, no_bucket, refused

pytestmark = [
    pytest.mark.proof,
    pytest.mark.timeout(300),  # the first one installs the server
    pytest.mark.skipif(shutil.which("npm") is None, reason="Azurite is a package of npm"),
]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """How the server is reached."""
    directory = tmp_path_factory.mktemp("azurite")
    with azurite_server(azurite(directory), directory / "kept") as found:
        yield found


def archive(options: dict[str, Any], prefix: str, container: str = CONTAINER) -> Archive:
    """Return the archive under a prefix."""
    return Archive(f"az://{container}/{prefix}", interval=0.1, **options)


@pytest.mark.parametrize("rule", [*CONTRACT, *SLOW])
def test_the_contract(
    rule: Callable[[At, Path], None], options: dict[str, Any], tmp_path: Path
) -> None:
    """What must hold on every server."""
    rule(partial(archive, options), tmp_path)


def test_no_container(options: dict[str, Any]) -> None:
    """It is one clear error, without a credential."""
    no_bucket(archive(options, "x", "nowhere"), options["account_key"])


def test_a_wrong_key(options: dict[str, Any]) -> None:
    """It is one clear error, which does not show it."""
    wrong = b64encode(bytes(64)).decode()
    denied = archive({**options, "account_key": wrong}, "x").bucket()
    refused(lambda: denied.put_new("a", b""), "no permission", wrong)
