"""plan: which postings a search reads; a plan changes what it costs, and never what it finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aquipu.local.index.plan import Plan, plan
from aquipu.options import Wanted
from aquipu.record import Record

LABELS = "abcde"
labels = st.lists(st.sampled_from(LABELS), max_size=4, unique=True).map(tuple)


@given(
    st.lists(labels, max_size=30),
    st.tuples(labels, labels).filter(any),
    st.fixed_dictionaries({label: st.integers(0, 10**6) for label in LABELS}),
    st.integers(0, 10**6),
)
def test_any_plan_finds_the_same(
    carried: list[tuple[str, ...]],
    sought: tuple[tuple[str, ...], tuple[str, ...]],
    sizes: dict[str, int],
    records: int,
) -> None:
    """Whatever the sizes are said to be, those of the candidates that carry what is wanted are all
    that do.
    """
    wanted = Wanted(*sought)
    made = [Record(number, 0, b"", of_record) for number, of_record in enumerate(carried)]
    way = plan(wanted, sizes, records)
    candidates = made if way is None else list(filter(way.sure.fits, made))
    assert list(filter(wanted.fits, candidates)) == list(filter(wanted.fits, made))


def test_the_rarest_label_comes_first() -> None:
    """Of several labels the rarest is looked up, and none that is a hundred times as frequent."""
    sizes = {"rare": 8_000, "often": 50_000, "everywhere": 1_000_000}
    assert plan(Wanted(("everywhere", "often", "rare"), ()), sizes, 1_000_000) == Plan(
        ("rare", "often"), ()
    )
    assert plan(Wanted(("everywhere",), ()), sizes, 1_000_000) == Plan(("everywhere",), ())


def test_labels_of_which_one_must_stand() -> None:
    """They count as one label that is as frequent as all together: looked up, or looked at."""
    sizes = {"rare": 4_000, "x": 20_000, "y": 30_000}
    assert plan(Wanted((), ("x", "y")), sizes, 1_000_000) == Plan((), ("x", "y"))
    assert plan(Wanted(("rare",), ("x", "y")), sizes, 1_000_000) == Plan(("rare",), ())
    assert plan(Wanted(("x",), ("rare", "y")), sizes, 1_000_000) == Plan(("x",), ("rare", "y"))


def test_few_postings_are_always_read() -> None:
    """To look up a label that stands in one block costs next to nothing."""
    assert plan(Wanted(("a", "b"), ()), {"a": 0, "b": 4096}, 10_000) == Plan(("a", "b"), ())


def test_more_postings_than_records() -> None:
    """Where very many postings would have to be read, every frame is looked through instead."""
    many = tuple(f"label {number}" for number in range(100))
    assert plan(Wanted((), many), dict.fromkeys(many, 50_000), 1_000_000) is None
