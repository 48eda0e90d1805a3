"""The address of a log in a database."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu import Reader, Store
from aquipu.postgres.address import address_of

SECRET = "s3cr=t&x"
QUOTED = "s3cr%3Dt%26x"


def test_what_an_address_says() -> None:
    """The log and the readers are ours; the server gets the rest."""
    found = address_of(
        f"postgresql://ada:{QUOTED}@one:5432,two:5433/db?log=audit"
        "&readers=three,four:1&sslmode=require"
    )
    assert found.dsn == f"postgresql://ada:{QUOTED}@one:5432,two:5433/db?sslmode=require"
    assert found.readers == f"postgresql://ada:{QUOTED}@three,four:1/db?sslmode=require"
    assert (found.log, found.is_unsafe) == ("audit", False)
    assert address_of("postgresql:///db?log=a&unsafe=yes").is_unsafe


@given(st.text(min_size=1), st.sampled_from(["user", "query"]))
def test_a_password_is_never_shown(password: str, place: str) -> None:
    """Wherever it stands, and whatever it is."""
    from urllib.parse import quote

    marked = quote("Zq9" + password + "9qZ", safe="", errors="surrogatepass")
    user, query = (f"ada:{marked}@", "") if place == "user" else ("ada@", f"&password={marked}")
    shown = address_of(f"postgresql://{user}host/db?log=audit{query}").shown
    assert marked not in shown
    assert shown.startswith("postgresql://ada@host/db?log=audit")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgresql://host/db", "names its log"),
        ("postgresql://host/db?log=", "name of a log"),
        ("postgresql://host/db?log=../x", "name of a log"),
        ("postgresql://host/db?log=a&unsafe=perhaps", "unsafe"),
        (f"postgresql://ada:{SECRET}[@host/db?log=a", "cannot be read"),
        ("mysql://host/db?log=a", "no place of a store"),
    ],
)
@pytest.mark.parametrize("opened", [Store.open, Reader.open])
def test_what_is_no_address(opened: object, text: str, said: str) -> None:
    """It is refused at once, and a password in it is not shown."""
    with pytest.raises(ValueError, match=said) as refused:
        opened(text)  # type: ignore[operator]
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "option",
    [{"max_segment_bytes": 1 << 20}, {"shared": True}, {"mode": 0o640}, {"group": "staff"}],
)
def test_options_of_files(option: dict[str, object]) -> None:
    """A log in a database has none, and says so."""
    with pytest.raises(TypeError, match="which has no files here"):
        Store.open("postgresql://host/db?log=a", **option)  # type: ignore[arg-type]
