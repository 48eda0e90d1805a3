"""Opening of a service's store: from a path and options, or by a function that opens it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from aquipu import Store

if TYPE_CHECKING:
    from aquipu import RemoteStore

AnyStore: TypeAlias = Union[Store, "RemoteStore"]
Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[AnyStore]]
"""Makes what is entered for a store, and closes it when that is left:

``lambda: Store.connect("unix:PATH")``.
"""
Source: TypeAlias = str | PathLike[str] | Opener


def opener_of(source: Source, options: dict[str, Any]) -> Opener:
    """Return a path and options of `Store.open` as an opener; an opener as it is.

    An address, ``unix:PATH``, takes the options of `Store.connect`.

    Nothing is opened before the opener is called and its result entered, which may be done again
    after a shutdown. An option that cannot be is a TypeError or ValueError now, and not when the
    service starts.
    """
    if isinstance(source, str | PathLike):
        opener = _opener_at(fspath(source), options)
        opener()  # checks the options, and does nothing else
        return opener
    if options:
        raise TypeError(f"options ({', '.join(options)}) belong to a path; an opener has its own")
    if not callable(source):
        raise TypeError(
            "a store is given as a path or as a function that opens it, "
            f"not as {type(source).__name__}; write lambda: Store.open(...)"
        )
    return source


def _opener_at(path: str, options: dict[str, Any]) -> Opener:
    if path.startswith("unix:") and "timeout" in options:  # which only connect has
        Store.open(
            path, **{name: value for name, value in options.items() if name != "timeout"}
        )  # says what cannot be
        return partial(Store.connect, path, **options)
    return partial(Store.open, path, **options)


# in the tests of an application


@contextmanager
def stood_in(
    app: object, name: object, opener_in_place_of: Callable[[Opener], Opener]
) -> Iterator[None]:
    """Have an application open another store in place of its own, until the end of the block.

    ``name``: under which it opens that; None: the one that services have by default.
    """
    key = id(app), name
    before = _stand_ins.get(key)
    _stand_ins[key] = opener_in_place_of
    try:
        yield
    finally:
        if before is None:
            del _stand_ins[key]
        else:
            _stand_ins[key] = before


def opener_for(app: object, name: object, own: Opener, *, is_default: bool) -> Opener:
    """Return what opens the store of an application: its own opener, or what stands in for it."""
    stand_in = _stand_ins.get((id(app), name))
    if stand_in is None and is_default:
        stand_in = _stand_ins.get((id(app), None))
    return own if stand_in is None else stand_in(own)


def options_of(opener: Opener) -> dict[str, Any]:
    """Return the options with which an opener opens a path, but for those of where it is."""
    if not isinstance(opener, partial) or opener.func is not Store.open:
        return {}
    return {name: value for name, value in opener.keywords.items() if name not in _OF_PLACES}


_OF_PLACES = frozenset({"disk", "shared", "mode", "group"})
_stand_ins: dict[tuple[int, object], Callable[[Opener], Opener]] = {}
