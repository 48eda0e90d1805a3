"""What a service is given to have its store opened: a path and options, or a function that opens one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from aquipu import Store

if TYPE_CHECKING:
    from aquipu import RemoteStore

AnyStore: TypeAlias = Union[Store, "RemoteStore"]
Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[AnyStore]]
"""Makes what is entered for a store, and closes it when that is left: ``lambda: Store.connect("unix:PATH")``."""
Source: TypeAlias = str | PathLike[str] | Opener


def opener_of(source: Source, options: dict[str, Any]) -> Opener:
    """A path and options of `Store.open` as an opener; an opener as it is.

    Nothing is opened before the opener is called and its result entered, which may be done again after a shutdown. An
    option that cannot be is a TypeError or ValueError now, and not when the service starts.
    """
    if isinstance(source, str | PathLike):
        opener = partial(Store.open, source, **options)
        opener()  # checks the options, and does nothing else
        return opener
    if options:
        raise TypeError(f"options ({', '.join(options)}) belong to a path; an opener has its own")
    if not callable(source):
        raise TypeError(
            f"a store is given as a path or as a function that opens it, not as {type(source).__name__}; "
            "write lambda: Store.open(...)"
        )
    return source
