"""Values: equal to their like, hashable, and never changed."""

from __future__ import annotations

import pytest

from aquipu.value import Value


class Point(Value):
    def __init__(self, x: object, y: object) -> None:
        vars(self).update(x=x, y=y)


class Place(Point):
    """The same attributes, but something else."""


def test_a_value_is_what_it_holds() -> None:
    """Equal and of one hash with the same attributes in the same class; unequal to everything else."""
    assert Point(1, "a") == Point(1, "a")
    assert len({Point(1, "a"), Point(1, "a"), Point(2, "a"), Place(1, "a")}) == 3
    assert Point(1, "a") != (1, "a")
    assert Point(1, "a") != Point("a", 1)


def test_a_value_shows_what_it_holds() -> None:
    """Its text is the call that makes it."""
    assert repr(Place(1, "a")) == "Place(x=1, y='a')"


def test_a_value_does_not_change() -> None:
    """No attribute can be set, added or deleted."""
    point = Point(1, 2)
    for name in ("x", "z"):
        with pytest.raises(AttributeError, match="a Point does not change"):
            setattr(point, name, 3)
    with pytest.raises(AttributeError, match="a Point does not change"):
        del point.x  # type: ignore[attr-defined]
    assert point == Point(1, 2)


def test_a_value_that_cannot_be_hashed() -> None:
    """What holds something that changes has no hash, as a tuple of it has none."""
    with pytest.raises(TypeError):
        hash(Point([], 1))
