"""The documents: every block of code in them is run, and every link leads somewhere.

How a document is read:

* A block tagged ``python`` is a whole program. It is run where it stands. Below a line that ends
  with a file name ("``with FastAPI, `app.py`:``") it is saved under that name instead, for what
  follows to run.
* A block tagged ``sh`` is run by ``bash -e``. One whose last line starts a server is left running
  until the next heading; it must still run then, and end when it is told to.
* A block without a tag stands right below one of these: exactly what that writes, to standard
  output and error.
* A block tagged ``text`` is a picture.

Each document is run in a new directory in which the files of the checkout are at hand, with ports
that are free. What installs is what `.ci/run` does, so it is left out here, and must only be of a
form that is known. What takes long is run in a smaller size: see `SMALLER`.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM
from tempfile import TemporaryFile
from time import monotonic, sleep
from typing import IO

import pytest

from benchmarks.servers import free_port
from tests.postgres.server import shared

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "aquipu/CHANGELOG.md",
    "aquipu/README.md",
    "aquipu/archive/README.md",
    "aquipu/cli/README.md",
    "aquipu/contrib/README.md",
    "aquipu/examples/deploy/README.md",
    "aquipu/contrib/web/README.md",
    "aquipu/local/backup/README.md",
    "aquipu/local/format/README.md",
    "aquipu/postgres/README.md",
    "aquipu/sync/README.md",
    "benchmarks/README.md",
    "tests/data/README.md",
    "tests/faults/README.md",
    "tests/postgres/README.md",
)
LONG = {
    "aquipu/archive/README.md",
    "aquipu/cli/README.md",
    "aquipu/contrib/README.md",
    "aquipu/contrib/web/README.md",
    "aquipu/local/backup/README.md",
    "aquipu/postgres/README.md",
    "benchmarks/README.md",
    "tests/faults/README.md",
}
"""Their commands start servers, measure, or repeat the proof: they belong to it."""
README_WORDS_MAX = 1300
SECONDS_MAX = 120.0

SMALLER = {
    "aquipu bench --quick": "aquipu bench --quick --help",
    "aquipu bench --quick --rate 50": "aquipu bench --help",
    "python -m benchmarks": "python -m benchmarks imports --smallest --no-servers",
    "python -m benchmarks --quick": "python -m benchmarks --quick --help",
    "python -m benchmarks append": "python -m benchmarks append --smallest --no-servers",
    "python -m benchmarks append peers": "python -m benchmarks append peers --help",
    "python -m benchmarks --out results": "python -m benchmarks --out results --help",
    "python benchmarks/append.py": "python benchmarks/append.py --help",
    "python -m tests.faults"
    " --states 1000000 --errors all --kills 10000 --flips all --examples 1000": (
        "python -m tests.faults --states 0 --errors 3 --kills 0 --flips 0 --examples 0 --no-mutants"
    ),
    "python -m tests.faults --states 200000 --errors all --kills 1500 --flips 100000 --seed 77": (
        "python -m tests.faults --help"
    ),
    "python -m tests.services --kills 20": "python -m tests.services --help",
    "python -m tests.archive": "python -m tests.archive --help",
    "python -m tests.backups": "python -m tests.backups --help",
    "python -m tests.postgres": "python -m tests.postgres --help",
    "python -m tests.remote.daemon.keys kills": "python -m tests.remote.daemon.keys kills --help",
    "python -m tests.remote.daemon.keys race": "python -m tests.remote.daemon.keys race --help",
    "python -m tests.remote.daemon.restarts --kills 20 --client-kills 6": (
        "python -m tests.remote.daemon.restarts --help"
    ),
}
"""What stands in a document, and what is run in its place."""

SERVERS = re.compile(
    r"(?:\w+=\S+ )*"
    r"(?:uvicorn|gunicorn|aquipu serve|aquipu web|aquipu follow|python \w+\.py)(?: .*)?"
)
"""Commands that run until they are told to end."""

_FENCE = re.compile(r"^```(\w*)$")
_NAMED = re.compile(r"`(\w+\.py)`:$")
_HEADING = re.compile(r"^#+ (.+)$")
_PORT = re.compile(r"(?<=--port )\d+|(?<=--metrics )\d+|(?<=PORT=)\d+|(?<=localhost:)\d+")
_DATABASE = "postgresql://app:secret@db/app"
"""The database of documents; that of the tests stands in for it."""
_SOCKET = re.compile(r"--socket (\S+)")
_INSTALLS = re.compile(
    r"pip install (?:-e )?'\.\[(?P<extras>[a-z,]+)\]'(?P<others>(?: [a-z0-9-]+)*)"
    r"(?: && pytest(?: [a-z/_]+)*)?"
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_OTHERS = {"uvicorn", "gunicorn", "uvicorn-worker", "httpx2"}
"""What services are served or tested by: no extra of ours, and named beside one."""


@dataclass
class Block:
    """A block of code as it stands in a document."""

    tag: str
    code: str
    line: int
    section: int
    """How many headings stand before it."""
    name: str | None = None
    """The file that it is to be saved in."""
    output: str | None = None
    """What stands right below it."""


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of a document; output belongs to the block above it.

    Raises ValueError for a block that nobody would run.
    """
    blocks: list[Block] = []
    inside: Block | None = None
    section, before = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if inside is not None and line != "```":
            inside.code += line + "\n"
        elif inside is not None:
            _keep(blocks, inside, before)
            inside, before = None, line
        elif fence is not None:
            named = _NAMED.search(before)
            inside = Block(fence[1], "", number, section, None if named is None else named[1])
        elif line.strip():
            section += _HEADING.match(line) is not None
            before = line
    if inside is not None:
        raise ValueError(f"line {inside.line}: a block has no end")
    return blocks


def _keep(blocks: list[Block], block: Block, before: str) -> None:
    if block.tag not in {"python", "sh", "text", ""}:
        raise ValueError(f"line {block.line}: nobody runs what is tagged {block.tag}")
    if block.tag:
        blocks.append(block)
    elif (
        before == "```"
        and blocks
        and blocks[-1].tag in {"python", "sh"}
        and blocks[-1].output is None
    ):
        blocks[-1].output = block.code
    else:
        raise ValueError(
            f"line {block.line}: a block without a tag is the output of the one right above it"
        )


def text_of(document: str) -> str:
    """Return a document as it stands."""
    return (ROOT / document).read_text(encoding="utf-8")


def words_of(command: str) -> list[str]:
    """Return the commands of a block of shell, without remarks and with their lines joined."""
    lines = command.replace("\\\n", " ").splitlines()
    return [
        stripped for line in lines if (stripped := re.sub(r"(?:^|\s+)#\s.*$", "", line).strip())
    ]


# running them


@dataclass
class Server:
    """A program that runs until it is told to end, with what it has written."""

    block: Block
    process: subprocess.Popen[bytes]
    written: IO[bytes]

    def text(self) -> str:
        """Return what it has written up to now."""
        self.written.seek(0)
        return self.written.read().decode()

    def end(self) -> None:
        """Tell it to end, as whatever starts services does.

        It must have run until now, and end in time.
        """
        try:
            assert self.process.poll() is None, (
                f"line {self.block.line}: it has ended by itself\n{self.text()}"
            )
            self.process.send_signal(SIGTERM)
            self.process.wait(SECONDS_MAX)
            assert "Traceback" not in self.text(), self.text()
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, SIGKILL)
        self.process.wait()
        self.written.close()


@dataclass
class Session:
    """A reader who does what a document tells to do, from its beginning to its end."""

    directory: Path
    ports: dict[str, int] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("aquipu", "benchmarks", "tests", "pyproject.toml"):
            (self.directory / name).symlink_to(ROOT / name)
        programs = self.directory.with_name(self.directory.name + "-bin")
        programs.mkdir()
        for name in ("aquipu", "uvicorn", "gunicorn", "pytest"):
            (programs / name).write_text(
                f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {name} "$@"\n'
            )
            (programs / name).chmod(0o755)
        (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        (programs / "python").chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONWARNINGS": "error::ResourceWarning",
            "COLUMNS": "120",
        }

    def run(self, blocks: Sequence[Block]) -> None:
        """Do everything that these blocks say."""
        section = 0
        for block in blocks:
            if block.section != section:
                self.end_servers()
                section = block.section
            if block.tag == "python":
                self._python(block)
            elif block.tag == "sh":
                self._shell(block)
        self.end_servers()

    def end_servers(self) -> None:
        """End the servers of a section, the one that was started last first."""
        while self.servers:
            self.servers.pop().end()

    def kill_servers(self) -> None:
        """End the servers after a failure."""
        while self.servers:
            self.servers.pop().kill()

    def _python(self, block: Block) -> None:
        (self.directory / (block.name or "program.py")).write_text(self._with_ports(block.code))
        if block.name is None:
            self._finish(block, ["python", "program.py"])

    def _shell(self, block: Block) -> None:
        commands = [command for command in words_of(block.code) if not _INSTALLS.fullmatch(command)]
        if not commands:
            return
        served = SERVERS.fullmatch(commands[-1]) is not None
        assert not any(map(SERVERS.fullmatch, commands[:-1])), (
            f"line {block.line}: only the last command may go on"
        )
        if served:
            commands[-1] = f"exec env {commands[-1]}"
        smaller = "\n".join(SMALLER.get(command, command) for command in commands)
        script = self._with_ports(re.sub(r"--workers \d+", "--workers 2", smaller))
        do = self._start if served else self._finish
        do(block, ["bash", "-euo", "pipefail", "-c", script])

    def _with_ports(self, code: str) -> str:
        """Put ports that are free in the place of those that are named."""

        def free(found: re.Match[str]) -> str:
            return str(self.ports.setdefault(found[0], free_port()))

        if _DATABASE in code:
            code = code.replace(_DATABASE, shared().url)
        return _PORT.sub(free, code)

    def _finish(self, block: Block, command: list[str]) -> None:
        program = self._launch(block, command)
        try:
            with suppress(subprocess.TimeoutExpired):
                program.process.wait(SECONDS_MAX)
            code, written = program.process.poll(), program.text()
        finally:
            program.kill()
        assert code == 0, f"line {block.line}: exit code {code}\n{written}"
        assert "Traceback" not in written, f"line {block.line}\n{written}"
        if block.output is not None:
            assert ended(written) == block.output, f"line {block.line}"

    def _start(self, block: Block, command: list[str]) -> None:
        server = self._launch(block, command)
        self.servers.append(server)
        deadline = monotonic() + SECONDS_MAX
        while not self._is_ready(server, command[-1]):
            code = server.process.poll()
            assert code is None, f"line {block.line}: exit code {code}\n{server.text()}"
            assert monotonic() < deadline, f"line {block.line}: it is not ready\n{server.text()}"
            sleep(0.02)

    def _launch(self, block: Block, command: list[str]) -> Server:
        written = TemporaryFile()  # noqa: SIM115 - closed when the program has ended
        process = subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return Server(block, process, written)

    def _is_ready(self, server: Server, command: str) -> bool:
        """Tell whether it listens where it says, and has written what it should."""
        if server.block.output is not None and ended(server.text()) != server.block.output:
            return False
        places: list[tuple[socket.AddressFamily, str | tuple[str, int]]] = [
            *((socket.AF_INET, ("localhost", int(port))) for port in _PORT.findall(command)),
            *((socket.AF_UNIX, str(self.directory / path)) for path in _SOCKET.findall(command)),
        ]
        return all(_listens(family, place) for family, place in places)


def ended(text: str) -> str:
    """Add the line end that a block cannot do without."""
    return text if text.endswith("\n") else text + "\n"


def _listens(family: socket.AddressFamily, place: str | tuple[str, int]) -> bool:
    with socket.socket(family) as client:
        return client.connect_ex(place) == 0


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Give a reader in a new directory."""
    directory = tmp_path / "checkout"
    directory.mkdir()
    session = Session(directory)
    yield session
    session.kill_servers()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "document",
    [pytest.param(name, marks=[pytest.mark.proof] * (name in LONG)) for name in DOCUMENTS],
)
def test_what_a_document_tells_to_do_works(document: str, session: Session) -> None:
    """Every program and every command succeeds, with the output that stands below it."""
    session.run(blocks_of(text_of(document)))


# what holds for all of them


def test_no_document_is_left_out() -> None:
    """Every Markdown file of the project is run here."""
    found = {path.relative_to(ROOT) for path in ROOT.rglob("*.md")}
    assert {
        str(path) for path in found if not any(part.startswith(".") for part in path.parts)
    } == set(DOCUMENTS)


def test_the_readme_is_short() -> None:
    """It is read from its beginning to its end."""
    assert len(text_of("README.md").split()) <= README_WORDS_MAX


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_installed_is_known(document: str) -> None:
    """aquipu is installed from the checkout, with extras that exist, and only servers beside it."""
    extras = set(tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"])
    for block in blocks_of(text_of(document)):
        for command in words_of(block.code) if block.tag == "sh" else ():
            if "pip" in command.split():
                installs = _INSTALLS.fullmatch(command)
                assert installs is not None, command
                assert set(installs["extras"].split(",")) <= extras
                assert set(installs["others"].split()) <= _OTHERS


def test_no_index_is_asked_for_the_package() -> None:
    """None has it, so pip could fetch a stranger's: what is installed is the checkout."""
    files = [file for kind in ("*.py", "*.md") for file in (ROOT / "aquipu").rglob(kind)]
    asked = re.compile(r"pip install (?:-\S+ )*['\"]?aquipu")
    assert [file for file in files if asked.search(file.read_text("utf-8"))] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """The file is there, and in it the heading."""
    for target in _LINK.findall(text_of(document)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file.read_text(encoding="utf-8")), target


def anchors_of(text: str) -> set[str]:
    """Return what the headings of a document are called in links, as GitHub does it."""
    headings = [found[1] for line in text.splitlines() if (found := _HEADING.match(line))]
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_ways_lead_through_what_is_there() -> None:
    """A way through the code names a file and a definition in it, so it is true till they move."""
    ways = text_of("aquipu/README.md").partition("## The way of one append")[2]
    assert ways.count("## The way of") == 5
    file, defined = "", set[str]()
    for word in re.findall(r"`([^`\n]+)`", ways):
        if word.endswith(".py"):
            file, defined = word, names_in(ROOT / "aquipu" / word)
        elif word.isidentifier():
            assert word in defined, f"{word} is not defined in {file}"


def names_in(file: Path) -> set[str]:
    """Return the names of all functions and classes of a file, methods among them."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, definitions)}


def test_the_map_has_every_folder() -> None:
    """What stands in the map is there, and no folder or file at the top is left out."""
    package = ROOT / "aquipu"
    listed = text_of("aquipu/README.md").partition("## The map")[2].partition("\n\n**")[0]
    rows = [line.split("|")[1] for line in listed.splitlines() if line.startswith("| `")]
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert {name for name in named if not (package / name).exists()} == set()
    there = {path.parent for path in package.rglob("__init__.py")} | set(package.glob("[a-z]*.py"))
    assert {str(path.relative_to(package)) for path in there - {package}} == named


@pytest.mark.parametrize("document", DOCUMENTS)
def test_programs_look_as_the_code_does(document: str, tmp_path: Path) -> None:
    """What is shown is formatted, and has no names that are not used."""
    for block in blocks_of(text_of(document)):
        if block.tag == "python":
            (tmp_path / f"line_{block.line}.py").write_text(block.code)
    ours = [
        "--config",
        str(ROOT / "pyproject.toml"),
        "--config",
        "lint.isort.known-first-party = ['aquipu']",
    ]
    for command in (["format", "--diff"], ["check", "--select", "B,E,F,I"]):
        ruff = [sys.executable, "-m", "ruff", *command, *ours, str(tmp_path)]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# how they are read


def test_output_belongs_to_the_block_above() -> None:
    """What stands between two blocks keeps them apart; blank lines do not."""
    [block] = blocks_of("```sh\ntrue\n```\n\n```\nout\n```\n")
    assert (block.code, block.output) == ("true\n", "out\n")
    with pytest.raises(ValueError, match="line 6: a block without a tag"):
        blocks_of("```sh\ntrue\n```\n\nand\n```\nout\n```\n")


@pytest.mark.parametrize(
    "text", ["```ruby\n```\n", "```sh\n", "```\nalone\n```\n", "```text\n```\n```\nout\n```\n"]
)
def test_no_block_is_passed_over(text: str) -> None:
    """What nobody would run is an error."""
    with pytest.raises(ValueError, match=r"^line \d"):
        blocks_of(text)


def test_a_program_is_saved_under_the_name_above_it() -> None:
    """So that a command can run it."""
    [block] = blocks_of("Save it as `app.py`:\n\n```python\npass\n```\n")
    assert block.name == "app.py"


APP_THAT_FAILS = """`app.py`:

```python
raise SystemExit(3)
```

```sh
python app.py
```

```
up
```
"""


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("```sh\nfalse\ntrue\n```\n", "exit code 1"),
        ("```sh\necho one\n```\n\n```\ntwo\n```\n", "line 1"),
        ("```python\nraise SystemExit(3)\n```\n", "exit code 3"),
        (APP_THAT_FAILS, "exit code 3"),
    ],
)
def test_what_does_not_work_is_found(document: str, reason: str, session: Session) -> None:
    """A command that fails, another output, a program that fails, a server that ends."""
    with pytest.raises(AssertionError, match=reason):
        session.run(blocks_of(document))


def test_a_server_runs_until_the_next_heading(session: Session) -> None:
    """What stands below it in its section may use it; one that has ended before is an error."""
    program = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"
    document = f"`app.py`:\n```python\n{program}```\n```sh\npython app.py\n```\n\n```\nup\n```\n"
    session.run(blocks_of(f"{document}# Next\n```sh\ntrue\n```\n"))
    assert not session.servers
    [_, block] = blocks_of(document)
    with TemporaryFile() as written, subprocess.Popen(["true"], start_new_session=True) as process:
        process.wait()
        with pytest.raises(AssertionError, match="ended by itself"):
            Server(block, process, written).end()
