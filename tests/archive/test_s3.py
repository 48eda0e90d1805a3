"""The archive on a server that speaks as S3 does: part of the proof."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aquipu import Archive
from tests.archive.contract import CONTRACT, SLOW, At, no_bucket
from tests.archive.s3 import BUCKET, s3_server

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, Any]]:
    """How the server is reached."""
    with s3_server() as found:
        yield found


def archive(options: dict[str, Any], prefix: str, bucket: str = BUCKET) -> Archive:
    """Return the archive under a prefix."""
    return Archive(f"s3://{bucket}/{prefix}", interval=0.1, **options)


@pytest.mark.parametrize("rule", [*CONTRACT, *SLOW])
def test_the_contract(
    rule: Callable[[At, Path], None], options: dict[str, Any], tmp_path: Path
) -> None:
    """What must hold on every server."""
    rule(partial(archive, options), tmp_path)


def test_no_bucket(options: dict[str, Any]) -> None:
    """It is one clear error, without a credential."""
    no_bucket(archive(options, "x", "nowhere"), "AKIAEXAMPLE", "the-secret-of-nobody")
