"""The mutants of `tests.faults` fit the source, and an edit that fits nothing says so."""

from __future__ import annotations

import pytest

from tests.faults.edit import Edit, edited
from tests.faults.mutants import MUTANTS, Mutant, mutated, sources

PACKAGE = {
    "journal.py": """
class Journal:
    def write(self, record):
        if record.sync:  # it owes one
            self.sync()
        self.append(record,
                    record.sync)
        self.append(None)
        return self.size

    async def close(self):
        def mark(): self.append(None)
        mark()
""",
    "other.py": "class Other:\n    def write(self): return self.size\n",
}


@pytest.fixture(scope="module")
def package() -> dict[str, str]:
    return sources()


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_applies_to_the_source(name: str, package: dict[str, str]) -> None:
    """What a mutant replaces is still there, once, and the result is a program."""
    for file, source in mutated(name, MUTANTS[name], package).items():
        assert source != package[file]
        compile(source, file, "exec")


def test_an_expression_is_replaced_wherever_its_lines_are_wrapped() -> None:
    """Formatting does not count, and the other statements of the file stay as they were."""
    changed = edited(PACKAGE, (Edit("Journal.write", "self.append(record,record.sync)", "None"),))
    lines = changed["journal.py"].splitlines()
    assert "        None" in lines
    assert "        self.append(None)" in lines
    assert "        return self.size" in lines


def test_an_expression_within_another_is_replaced() -> None:
    """Also one among the arguments of a call."""
    edit = Edit("Journal.write", "self.append(record, record.sync)", "self.append(record, False)")
    inner = Edit("Journal.write", "self.sync()", "record.sync()")
    changed = edited(PACKAGE, (edit, inner))["journal.py"]
    assert "self.append(record, False)" in changed
    assert "record.sync()" in changed


def test_statements_are_replaced_by_others_and_by_none() -> None:
    """Several statements in a row are one thing; where none is left, the body says pass."""
    both = "self.append(record, record.sync)\nself.append(None)"
    changed = edited(PACKAGE, (Edit("Journal.write", both, "a = 1\nb = 2"),))["journal.py"]
    assert "        a = 1\n        b = 2\n        return self.size\n" in changed
    changed = edited(PACKAGE, (Edit("Journal.write", "self.sync()", ""),))["journal.py"]
    assert "if record.sync:\n            pass\n" in changed


def test_a_function_within_another_is_named_by_both() -> None:
    """The path of names leads through classes and functions."""
    changed = edited(PACKAGE, (Edit("Journal.close.mark", "None", "0"),))["journal.py"]
    assert changed.count("self.append(0)") == 1
    assert changed.count("self.append(None)") == 1


def test_later_edits_see_what_earlier_ones_have_made() -> None:
    """The edits of a mutant are made in order, also in the same function."""
    edits = (Edit("Journal.write", "self.size", "1"), Edit("Journal.write", "return 1", "return 2"))
    assert "return 2" in edited(PACKAGE, edits)["journal.py"]


def test_a_function_that_moved_to_another_file_is_found() -> None:
    """Only the name of the function counts."""
    moved = {"elsewhere.py": PACKAGE["journal.py"], "other.py": PACKAGE["other.py"]}
    changed = edited(moved, (Edit("Journal.write", "self.size", "0"),))
    assert list(changed) == ["elsewhere.py"]
    assert "return 0" in changed["elsewhere.py"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Edit("Journal.read", "self.size", "0"), "there is no function Journal.read"),
        (Edit("write", "self.size", "0"), "there is no function write"),
        (Edit("Journal", "self.size", "0"), "there is no function Journal"),
        (Edit("Journal.write", "self.bytes", "0"), "Journal.write holds this 0 times, not once: "),
        (Edit("Journal.write", "record.sync", "0"), "Journal.write holds this 2 times, not once: "),
    ],
)
def test_an_edit_that_does_not_fit_names_the_mutant_and_what_it_looked_for(
    edit: Edit, said: str
) -> None:
    """A function that is missing; nothing that matches; two matches."""
    with pytest.raises(LookupError) as caught:
        mutated("writes nothing", Mutant("model", (edit,)), PACKAGE)
    message = str(caught.value)
    assert message.startswith(f"the mutant 'writes nothing' must be written anew: {said}")
    assert edit.function in message
    assert edit.old in message or "there is no function" in message


def test_functions_of_one_name_in_two_files_are_told_apart_by_what_they_hold() -> None:
    """Where both hold it, it is two matches."""
    twice = {"a.py": "def f():\n    return 1", "b.py": "def f():\n    return 2"}
    assert list(edited(twice, (Edit("f", "2", "3"),))) == ["b.py"]
    with pytest.raises(LookupError, match="2 times"):
        edited({**twice, "c.py": twice["b.py"]}, (Edit("f", "2", "3"),))
