"""A real log of sshd, stored with the remote address and the user of each line as relations: the
example of the README.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aquipu.examples.store_sshd import ADDRESS
from tests.cli.support import run, well

LOG = Path(__file__).parents[1] / "data" / "openssh_40.log"
LINES = LOG.read_bytes().splitlines(keepends=True)

# what it gives


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored as the README says."""
    directory = tmp_path_factory.mktemp("openssh")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-m", "aquipu.examples.store_sshd"]
    with LOG.open("rb") as log:
        subprocess.run(command, cwd=directory, env=environment, stdin=log, check=True)
    return directory / "sshd"


def test_all_of_it_comes_back(store: Path) -> None:
    """The log is what it was, byte for byte."""
    assert len(LINES) == 40
    assert well("cat", store) == LOG.read_bytes()


def test_an_address_finds_exactly_the_lines_in_which_it_stands(store: Path) -> None:
    """Not one line more: 5.36.59.7 is not found where 5.36.59.76 stands; and not one less, also
    within a host's name.
    """
    addresses = set(ADDRESS.findall(LOG.read_text()))
    assert {"173.234.31.186", "5.36.59.76", "112.95.230.3"} <= addresses
    for address in addresses:
        stands = re.compile(rb"(?<![0-9.])" + re.escape(address.encode()) + rb"(?![0-9])")
        assert well("find", store, f"address:{address}") == b"".join(
            line for line in LINES if stands.search(line)
        )
    assert well("find", store, "address:5.36.59.7") == b""


def test_a_user_and_an_address(store: Path) -> None:
    """Several labels are found together: the lines of one user from one address."""
    found = well("find", store, "user:webmaster", "address:173.234.31.186")
    assert found == b"".join(
        line for line in LINES if b"user webmaster" in line and b"173.234.31.186" in line
    )
    assert found.count(b"\n") == 4


def test_who_tried(store: Path) -> None:
    """The users are listed with the number of lines in which they stand."""
    users = json.loads(well("relations", store, "--prefix", "user:", "--json"))
    assert list(users) == sorted(users)
    assert users["user:test9"] == sum(b"test9" in line for line in LINES)
    assert users["user:root"] == sum(
        b"user=root" in line or b"password for root" in line for line in LINES
    )
    assert run("verify", store).returncode == 0


def test_the_documents_name_what_is_there() -> None:
    """Their commands read a log that is in the checkout, and what they tell to make there is
    ignored by git.
    """
    root = Path(__file__).parents[2]
    texts = [(root / name).read_text() for name in ("README.md", "aquipu/cli/README.md")]
    readme = "".join(texts)
    assert f"python -m aquipu.examples.store_sshd < {LOG.relative_to(root)}\n" in readme
    made = set(
        re.findall(
            r"(?:^|&& |\| )aquipu (?:append|find) (\w+)|Store\.open\(\"(\w+)\"",
            readme,
            re.MULTILINE,
        )
    )
    stores = {"".join(name) for name in made}
    assert stores == {"audit", "old", "orders", "sshd"}
    saved = set(re.findall(r"`(\w+\.py)`:$", readme, re.MULTILINE))
    ignored = (root / ".gitignore").read_text().splitlines()
    assert {f"/{name}/" for name in stores} | {f"/{name}" for name in saved} <= set(ignored)
