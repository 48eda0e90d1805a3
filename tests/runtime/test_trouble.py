"""What is in the way of a store, by its cause."""

from __future__ import annotations

from aquipu.runtime.trouble import Troubles


def test_a_trouble_is_new_once_and_ends() -> None:
    """A cause has one reason at a time, the latest; it is new when it was not there, also after it
    has ended.
    """
    troubles = Troubles()
    assert troubles.begin("roll", "no descriptors")
    assert troubles.begin("space", "no space")
    assert not troubles.begin("roll", "no memory")
    assert list(troubles.reasons) == ["no memory", "no space"]
    troubles.end("roll")
    assert list(troubles.reasons) == ["no space"]
    assert troubles.begin("roll", "no descriptors")


def test_what_was_never_there_may_end() -> None:
    """Whoever sees that something works says so, and need not know whether it did not before."""
    troubles = Troubles()
    troubles.end("roll")
    assert troubles.reasons == ()
