"""Edits of a function of the package: one statement or expression of it is replaced.

What is replaced is found by syntax tree, so neither the file in which the function stands nor the
way its lines are wrapped matters. Comments get lost on the way, and nothing else.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Edit:
    """Replaces ``old``, which stands once in the function, by ``new``.

    Both are source: an expression, or statements one behind another.
    """

    function: str
    """Qualified name of the function, as `Journal.write`; any file of the package may define it."""
    old: str
    new: str
    """The replacement; without any, the statements are left out."""


def edited(sources: Mapping[str, str], edits: tuple[Edit, ...]) -> dict[str, str]:
    """Return those files of a package that the edits change, by name, with the edits made in order.

    Raises LookupError when there is no such function, or when it does not hold ``old`` just once.
    """
    changed: dict[str, str] = {}
    for edit in edits:
        changed |= _edited({**sources, **changed}, edit)
    return changed


def _edited(sources: Mapping[str, str], edit: Edit) -> dict[str, str]:
    old, new = ast.parse(edit.old).body, ast.parse(edit.new).body
    name = edit.function.rpartition(".")[2]
    is_defined = False
    found: list[tuple[str, ast.Module, Callable[[], None]]] = []
    for file, source in sources.items():
        if f"def {name}" in source:
            tree = ast.parse(source)
            for function in _functions(tree, edit.function.split(".")):
                is_defined = True
                found += [(file, tree, replace) for replace in _places(function, old, new)]
    if not is_defined:
        raise LookupError(f"there is no function {edit.function}")
    if len(found) != 1:
        raise LookupError(f"{edit.function} holds this {len(found)} times, not once: {edit.old}")
    [(file, tree, replace)] = found
    replace()
    return {file: ast.unparse(ast.fix_missing_locations(tree)) + "\n"}


def _functions(node: ast.AST, path: list[str]) -> Iterator[_Function]:
    """Yield the functions that are found on this path of classes and functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _Function | ast.ClassDef):
            yield from _functions(child, path)
        elif child.name == path[0] and len(path) > 1:
            yield from _functions(child, path[1:])
        elif child.name == path[0] and isinstance(child, _Function):
            yield child


def _places(
    function: _Function, old: list[ast.stmt], new: list[ast.stmt]
) -> Iterator[Callable[[], None]]:
    """Yield a way to replace each occurrence of ``old`` in the function."""
    match old, new:
        case [ast.Expr(sought)], [ast.Expr(replacement)]:
            yield from _places_of_expression(function, ast.dump(sought), replacement)
        case _:
            yield from _places_of_statements(function, list(map(ast.dump, old)), new)


def _places_of_expression(
    function: _Function, old: str, new: ast.expr
) -> Iterator[Callable[[], None]]:
    for node in ast.walk(function):
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.expr) and ast.dump(value) == old:
                yield partial(setattr, node, field, new)
            if isinstance(value, list):
                for n, item in enumerate(value):
                    if isinstance(item, ast.expr) and ast.dump(item) == old:
                        yield partial(value.__setitem__, n, new)


def _places_of_statements(
    function: _Function, old: list[str], new: list[ast.stmt]
) -> Iterator[Callable[[], None]]:
    for node in ast.walk(function):
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                dumps = list(map(ast.dump, value))
                for n in range(len(value) - len(old) + 1):
                    if dumps[n : n + len(old)] == old:
                        place = slice(n, n + len(old))
                        yield partial(value.__setitem__, place, new or [ast.Pass()])
