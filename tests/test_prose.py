"""The docstrings of the package: whole sentences, the imperative for functions, 100 columns."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import aquipu

ROOT = Path(aquipu.__file__).parent
COLUMNS = 100

_WORDS = """
A All An And Any Are As At Because Before After Both But By Each Either Every Everything False
First For From Has He How If In Is It Its Last Like More Most Neither Never No Nobody None Not
Nothing Of On One Only Or Otherwise Same She So Some Such That The Their Then There These They
This Those To True Two Under Until Up Was Were What Whatever When Where Whether Which While Who
Whoever Whose Why With Without You Your
"""
NO_IMPERATIVE = frozenset(_WORDS.split())
"""Words that open a description of a function, never a command to it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def problems(source: str) -> Iterator[str]:
    """Yield what is wrong with the prose of one file, a line for each fault."""
    for number, line in enumerate(source.splitlines(), 1):
        if len(line) > COLUMNS:
            yield f"line {number}: {len(line)} columns"
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | Function):
            continue
        if docstring := ast.get_docstring(node):
            where = f"line {node.body[0].lineno}"
            yield from (f"{where}: {fault}" for fault in _faults(docstring, node))


def _faults(docstring: str, node: ast.Module | ast.ClassDef | Function) -> Iterator[str]:
    first, _, rest = docstring.partition("\n")
    if not re.match(r"[A-Z0-9`'\"*:]", first):
        yield f"begins with a small letter: {first!r}"
    if not first.endswith((".", "?", "!", ":")) or (rest and not rest.startswith("\n")):
        yield f"the first line is no whole sentence: {first!r}"
    described = isinstance(node, Function) and not _is_attribute(node)
    if described and re.split(r"\W", first)[0] in NO_IMPERATIVE:
        yield f"is no imperative: {first!r}"


def _is_attribute(node: Function) -> bool:
    """Return whether callers read the function like an attribute."""
    names = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(names & {"property", "cached_property", "setter"})


def names_in(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a file defines or uses."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "name", "arg", "module"):
            yield from str(getattr(node, field, "")).split(".")


def quoted(tree: ast.Module) -> Iterator[str]:
    """Yield the names that its docstrings show in single backticks."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield from re.findall(r"(?<!`)`([\w.]+)`(?!`)", str(node.value.value))


def test_a_name_in_single_backticks_is_in_the_package() -> None:
    """A docstring still says what a thing is called; names from elsewhere have two backticks."""
    trees = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}
    known = {name for tree in trees.values() for name in names_in(tree)}
    known |= {part.removesuffix(".py") for file in trees for part in file.parts}
    unknown = {
        str(file): sorted({name for name in quoted(tree) if name.split(".")[-1] not in known})
        for file, tree in trees.items()
    }
    assert {file: names for file, names in unknown.items() if names} == {}
    assert sum(1 for tree in trees.values() for _ in quoted(tree)) > 100


def test_a_file_speaks_in_whole_sentences() -> None:
    """Every docstring opens with a sentence of one line, a function's in the imperative."""
    files = {path.relative_to(ROOT): path.read_text("utf-8") for path in ROOT.rglob("*.py")}
    found = {str(file): list(problems(source)) for file, source in files.items()}
    assert {file: faults for file, faults in found.items() if faults} == {}
    assert len(files) > 100


GOOD = {
    "function": 'def f():\n    """Return the names in a directory, in no order."""',
    "rest after a blank line": 'def f():\n    """Drop the file.\n\n    The rest.\n    """',
    "method": 'class C:\n    """A cursor."""\n    async def f(self):\n        """Wait."""',
    "property": 'class C:\n    @property\n    def f(self):\n        """The first sequence."""',
    "cached": 'class C:\n    @functools.cached_property\n    def f(self):\n        """A size."""',
    "module": '"""The records of a log."""',
    "backticks": '"""`append` and its policies:\n\n- one\n- two\n"""',
    "no docstring": "def f(): pass",
    "a line as long as may be": f"x = {'1' * (COLUMNS - 4)}",
}

BAD = {
    "description": ('def f():\n    """Whether it is open."""', "line 2: is no imperative"),
    "article": ('class C:\n    async def f(self):\n        """The names."""', "is no imperative"),
    "no period": ('def f():\n    """Return the names"""', "no whole sentence"),
    "wrapped": ('def f():\n    """Return the\n    names.\n    """', "no whole sentence"),
    "no blank line": ('def f():\n    """Return it.\n    The rest.\n    """', "no whole sentence"),
    "small letter": ('"""records of a log."""', "line 1: begins with a small letter"),
    "class": ('class C:\n    """a cursor."""', "line 2: begins with a small letter"),
    "nested": ('def f():\n    def g():\n        """Those at hand."""', "is no imperative"),
    "too long": (f"x = {'1' * (COLUMNS - 3)}", f"line 1: {COLUMNS + 1} columns"),
}


@pytest.mark.parametrize("source", GOOD.values(), ids=GOOD.keys())
def test_good_prose_passes(source: str) -> None:
    """What keeps to the rules is not complained about."""
    assert list(problems(source)) == []


@pytest.mark.parametrize(("source", "fault"), BAD.values(), ids=BAD.keys())
def test_bad_prose_is_found(source: str, fault: str) -> None:
    """Each broken rule is named once, with its line."""
    (found,) = problems(source)
    assert fault in found
