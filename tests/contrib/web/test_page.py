"""The page in a real browser: what people see of a store, and what it does with what strangers
have stored.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from aquipu import Always, EveryN, Reader, Store
from aquipu.contrib.web.app import app
from tests.contrib.support import under_uvicorn
from tests.contrib.web.browsing import DESKTOP, PHONE, chromium, visit
from tests.contrib.web.support import TOKEN

pytestmark = [pytest.mark.proof, pytest.mark.asyncio(loop_scope="module")]

HOSTILE = {
    "html": b"<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>",
    "json": b'{"<img src=x onerror=window.hacked=1>": "</script><script>window.hacked=1</script>"}',
    "escapes": b"\x1b[2J\x1b]0;title\x07 red \x9b31m \x00",
    "bidi": "safe \u202egpj.exe\u202c \u2066\u200b\ufeff".encode(),
    "bytes": b"\xff\xfe\x80 no UTF-8",
    "nul": b"\x00" * 200,
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "number": b'{"id": 12345678901234567890, "small": 1.50}',
    "proto": b'{"__proto__": {"polluted": 1}, "constructor": "x", "toString": null}',
    "empty": b"",
}
HOSTILE_LABEL = "user:<b onmouseover=window.hacked=1>\u202ex"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "store", sync_policy=EveryN(64)) as store:
        yield store


async def fill(store: Store, count: int) -> None:
    for number in range(count):
        labels = [f"user:{number % 7}", "even" if number % 2 == 0 else "odd"]
        await store.append(b"record %d" % number, relations=labels)


async def test_the_page_shows_a_store_at_work(store: Store, browser: Browser) -> None:
    """The newest records, the figures, the consumers; the figures move, and a new record comes by
    itself.
    """
    await fill(store, 80)
    await store.cursor("billing").save(20)
    async with visit(browser, app(store)) as page:
        await page.open()
        await page.row(79)
        assert await page.sequences() == list(range(79, 29, -1))
        await page.live()
        await page.until("document.querySelector('#kept').textContent === '80'")
        assert "billing" in await page.text("#consumers")
        await store.append(b"something new", relations=["user:7"])
        await page.row(80)
        assert "something new" in await page.text('#rows tr[data-sequence="80"]')
        await page.until("document.querySelector('#kept').textContent === '81'")
        await page.page.wait_for_selector("#rate-chart path.line", state="attached")
        await page.page.wait_for_selector("#history-chart .bar")
        await page.page.click("#older")
        await page.row(0)
        assert await page.sequences() == list(range(80, -1, -1))
        working = asyncio.create_task(at_work(store))
        await page.until("Number(document.querySelector('#rate').textContent) > 0")
        working.cancel()


async def at_work(store: Store) -> None:
    """Append a record now and then, until this is cancelled."""
    while True:
        await store.append(b"more")
        await asyncio.sleep(0.1)


async def test_what_is_not_known_is_said(store: Store, browser: Browser) -> None:
    """A page that reads the files beside the writer shows no figure that it cannot have."""
    await fill(store, 3)
    async with Reader.open(store.path) as reader, visit(browser, app(reader)) as page:
        await page.open()
        await page.live()
        await page.row(2)
        await page.until("document.querySelector('#kept').textContent === '3'")
        assert await page.text("#append99") == "not known here"
        assert await page.text("#unsynced") == "not known here"
        assert "only that process knows" in await page.text("#unknown")
        await store.append(b"new")
        await page.row(3)


async def test_records_are_found_by_label_and_time(store: Store, browser: Browser) -> None:
    """By what is typed, by a click on a label, and by the address, which can be sent on."""
    await fill(store, 60)
    async with visit(browser, app(store)) as page:
        await page.open()
        await page.row(59)
        await page.page.fill("#label", "user:3")
        await page.page.press("#label", "Enter")
        await page.page.wait_for_selector("#chips li")
        await page.row(52)
        assert await page.sequences() == [59, 52, 45, 38, 31, 24, 17, 10, 3]
        await page.page.click('#rows tr[data-sequence="52"] button.chip:has-text("even")')
        await page.until("document.querySelectorAll('#chips li').length === 2")
        await page.until("document.querySelectorAll('#rows tr').length === 4")
        assert await page.sequences() == [52, 38, 24, 10]
        address = page.page.url
        await store.append(b"fits", relations=["user:3", "even"])
        await store.append(b"fits not", relations=["user:3", "odd"])
        await page.row(60)
        assert 61 not in await page.sequences()
        await page.page.go_back()
        await page.until("document.querySelectorAll('#chips li').length === 1")
        await page.page.goto("about:blank")
        page.wrong.clear()
        await page.page.goto(address)
        await page.row(60)
        assert await page.sequences() == [60, 52, 38, 24, 10]
        await page.page.select_option("#span", "900")
        await page.until("location.hash.includes('span=900')")
        await page.row(60)
        await page.page.click("#history-chart .hit:first-of-type")
        await page.until("document.querySelector('#span').value === 'between'")
        await page.until("document.querySelector('#status').textContent === 'No record fits.'")


async def test_labels_are_completed_by_keyboard(store: Store, browser: Browser) -> None:
    """The most frequent first, with how often; arrows choose, Enter takes, Escape closes."""
    await fill(store, 20)
    async with visit(browser, app(store)) as page:
        await page.open()
        await page.page.focus("#label")
        await page.page.keyboard.type("user:")
        await page.page.wait_for_selector("#offers li")
        offered = await page.page.locator("#offers li").all_inner_texts()
        assert [one.split() for one in offered][:2] == [["user:0", "3"], ["user:1", "3"]]
        assert await page.page.get_attribute("#label", "aria-expanded") == "true"
        await page.page.keyboard.press("Escape")
        assert await page.page.locator("#offers").is_hidden()
        await page.page.keyboard.type("6")
        await page.page.wait_for_selector("#offers li")
        await page.page.keyboard.press("ArrowDown")
        chosen = await page.page.get_attribute("#label", "aria-activedescendant")
        assert chosen == "offer-0"
        await page.page.keyboard.press("Enter")
        await page.page.wait_for_selector("#chips li")
        await page.until("document.querySelectorAll('#rows tr').length === 2")
        assert await page.sequences() == [13, 6]


async def test_a_lost_connection_comes_back_without_a_gap_or_a_double(
    store: Store, browser: Browser
) -> None:
    """The service ends and is started anew, while records go on coming."""
    await fill(store, 5)
    async with under_uvicorn(app(store), timeout_graceful_shutdown=1) as port:
        pass
    async with visit(browser, app(store), port=port) as page:
        page.expected = ("ERR_",)
        for _ in range(2):
            async with under_uvicorn(app(store), timeout_graceful_shutdown=1, port=port):
                if page.page.url == "about:blank":
                    await page.open()
                await page.live()
                await store.append(b"while it is there")
                await page.row(store.next_sequence - 1)
            await page.page.wait_for_selector('#link[data-state="warn"]', timeout=10_000)
            for _ in range(7):
                await store.append(b"while it is away")
        async with under_uvicorn(app(store), timeout_graceful_shutdown=1, port=port):
            await page.row(store.next_sequence - 1)
            await page.live()
            assert await page.sequences() == list(range(store.next_sequence - 1, -1, -1))


async def test_more_than_anybody_reads_is_passed_over(store: Store, browser: Browser) -> None:
    """The newest stand there, and between them how many do not; nothing is unaccounted for."""
    async with visit(browser, app(store)) as page:
        await page.open()
        await page.live()
        for _ in range(10):
            await store.append_many([b"x"] * 500)
        await page.row(4999)
        counted = await page.page.evaluate(
            "[...document.querySelectorAll('#rows tr.passed td')]"
            ".map((one) => Number(one.firstChild.data.replace(/[^0-9]/g, '')))"
        )
        shown = await page.sequences()
        assert len(shown) + sum(counted) == 5000
        assert shown == sorted(set(shown), reverse=True)
        await page.page.click("#rows tr.passed button >> nth=0")
        await page.until("location.hash.includes('before=')")
        await page.until("document.querySelectorAll('#rows tr').length === 50")
        assert max(await page.sequences()) < 4999


async def test_a_list_that_is_not_live_waits(store: Store, browser: Browser) -> None:
    """What has come is counted, and put on top when it is asked for."""
    await fill(store, 3)
    async with visit(browser, app(store)) as page:
        await page.open()
        await page.live()
        await page.page.uncheck("#tail")
        await store.append_many([b"new"] * 4)
        await page.page.wait_for_selector("#show-new:has-text('Show 4 new records')")
        assert await page.sequences() == [2, 1, 0]
        await page.page.click("#show-new")
        await page.row(6)
        assert await page.sequences() == [6, 5, 4, 3, 2, 1, 0]


async def test_a_record_is_opened_by_keyboard(store: Store, browser: Browser) -> None:
    """Its JSON is folded out; Escape leads back to where it was opened."""
    value = {"user": {"name": "Ada", "tags": ["a", "b"]}, "ok": True, "none": None}
    await store.append_json(value, relations=["user:7"])
    await store.append(b"plain text\nin two lines")
    async with visit(browser, app(store)) as page:
        await page.open()
        await page.row(0)
        await page.page.focus('#rows tr[data-sequence="0"] a')
        await page.page.keyboard.press("Enter")
        await page.page.wait_for_selector("#detail[open]")
        body = await page.text("#body")
        for part in ("user", "Ada", '"a"', "true", "null"):
            assert part in body
        await page.page.click("#views button:has-text('Text')")
        assert json.loads(await page.text("#body")) == value
        await page.page.click("#newer-one")
        await page.page.wait_for_selector("#detail-title:has-text('Record 1')")
        assert await page.text("#body") == "plain text\nin two lines"
        await page.page.click("#newer-one")
        await page.page.wait_for_selector("#body:has-text('not yet stored')")
        page.wrong = [one for one in page.wrong if "404" not in one]
        await page.page.keyboard.press("Escape")
        await page.until("document.activeElement.closest('tr')?.dataset.sequence === '0'")


async def test_hostile_records_are_shown_as_data(store: Store, browser: Browser) -> None:
    """In the list, opened, in each form, and as labels: nothing runs, and nothing is hidden."""
    for data in HOSTILE.values():
        await store.append(data, relations=[HOSTILE_LABEL])
    await store.cursor("consumer.name").save(1)
    async with visit(browser, app(store)) as page:
        await page.open()
        await page.row(0)
        rows = await page.text("#rows")
        assert "<script>window.hacked=1</script>" in rows
        assert "\x1b" not in rows
        assert "ESC[2J" in rows
        assert "U+202E" in rows
        assert "\u202e" not in rows
        await page.page.fill("#label", "user:")
        await page.page.type("#label", "<")
        await page.page.wait_for_selector("#offers li")
        await page.page.press("#label", "Escape")
        for sequence, name in enumerate(HOSTILE):
            await page.page.evaluate(f"location.hash = 'record={sequence}'")
            await page.page.wait_for_selector(
                f"#detail[open] #detail-title:text-is('Record {sequence}')"
            )
            for view in await page.page.locator("#views button").all():
                await view.click()
            if name == "bytes":
                assert "ff fe 80 20" in await page.text("#body")
            if name == "number":
                await page.page.click("#views button:has-text('JSON')")
                assert "12345678901234567890" in await page.text("#body")
                assert "1.50" in await page.text("#body")
            if name == "deep":
                await page.page.click("#views button:has-text('JSON')")
                await page.page.wait_for_selector("#body details details")
        await page.page.keyboard.press("Escape")
        assert await page.page.evaluate("window.hacked ?? ({}).polluted ?? null") is None
        assert await page.page.locator("#rows img, #rows script, #body img").count() == 0


async def test_a_very_large_record(tmp_path: Path, browser: Browser) -> None:
    """Its beginning is shown, and more when it is asked for; the list is none the slower."""
    async with Store.open(tmp_path / "large", sync_policy=Always()) as store:
        await store.append(b"<" * (16 * 1024 * 1024))
        await store.append(b"small")
        async with visit(browser, app(store)) as page:
            await page.open("#record=0")
            await page.page.wait_for_selector("#detail[open]")
            assert await page.text("#shown-bytes") == "The first 64 KiB of 16 MiB"
            await page.page.click("#more-data")
            await page.page.wait_for_selector(
                "#shown-bytes:has-text('The first 128 KiB of 16 MiB')"
            )
            async with page.page.expect_download() as download:
                await page.page.click("#download")
            assert (await download.value).suggested_filename == "record-0.bin"


async def test_the_token_is_asked_for(store: Store, browser: Browser) -> None:
    """A wrong one is said; the right one opens the page, and stands in no address."""
    await fill(store, 3)
    guarded = app(store, token=TOKEN)
    async with visit(browser, guarded) as page:
        page.expected = ("401",)
        await page.open()
        for token in ("not the token at all", TOKEN):
            await page.page.wait_for_selector("#login[open]")
            await page.page.fill("#token", token)
            await page.page.keyboard.press("Enter")
            if token != TOKEN:
                await page.page.wait_for_selector("#login-wrong:has-text('not the token')")
        await page.row(2)
        await page.live()
        assert await page.page.locator("#login").is_hidden()
        assert TOKEN not in page.page.url
        await page.page.reload()
        await page.row(2)
    async with visit(browser, guarded) as page:
        await page.open(f"#token={TOKEN.replace(' ', '%20')}")
        await page.row(2)
        assert "token" not in page.page.url


@pytest.mark.parametrize(("scheme", "size"), [("light", DESKTOP), ("dark", PHONE)])
async def test_nothing_serious_is_in_the_way_of_anybody(
    scheme: Literal["light", "dark"], size: dict[str, int], store: Store, browser: Browser
) -> None:
    """axe-core, in the light and in the dark, on a large and a small screen, with each dialog."""
    await fill(store, 30)
    await store.append_json({"a": [1, {"b": "c"}], "d": None}, relations=["user:1"])
    await store.append(b"\x1b[31m\xe2\x80\xae")
    await store.cursor("billing").save(7)
    options: dict[str, Any] = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"}
    async with visit(browser, app(store), **options) as page:
        await page.open("#label=user%3A1&span=between")
        await page.live()
        await page.page.wait_for_selector("#consumers tbody tr")
        assert await page.faults() == []
        assert await page.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        await page.page.focus("#label")
        await page.page.keyboard.type("user")
        await page.page.wait_for_selector("#offers li")
        await page.page.keyboard.press("ArrowDown")
        assert await page.faults() == []
        await page.page.evaluate("location.hash = 'record=30'")
        await page.page.wait_for_selector("#detail[open]")
        assert await page.faults() == []
    async with visit(browser, app(store, token=TOKEN), **options) as page:
        page.expected = ("401",)
        await page.open()
        await page.page.wait_for_selector("#login[open]")
        assert await page.faults() == []


async def test_everything_is_reached_by_keyboard(store: Store, browser: Browser) -> None:
    """From the link over the head on, and what has the focus can be seen."""
    await fill(store, 2)
    async with visit(browser, app(store)) as page:
        await page.open()
        await page.row(1)
        reached: list[str] = []
        for _ in range(14):
            await page.page.keyboard.press("Tab")
            reached.append(
                await page.page.evaluate(
                    "document.activeElement.id || document.activeElement.textContent"
                )
            )
            width = await page.page.evaluate(
                "getComputedStyle(document.activeElement).outlineWidth"
            )
            assert width != "0px"
        assert reached[0] == "Skip to the log"
        for name in ("tail", "label", "span", "1", "user:1", "odd"):
            assert name in reached


async def test_two_pages_cost_no_more_than_one(store: Store, browser: Browser) -> None:
    """They look at the same moments; when the last one has left, nothing runs any more."""
    await fill(store, 2)
    application = app(store)
    async with under_uvicorn(application, timeout_graceful_shutdown=1) as port:
        async with (
            visit(browser, application, port=port) as one,
            visit(browser, application, port=port) as other,
        ):
            for page in (one, other):
                await page.open()
                await page.live()
            await store.append(b"for both")
            await asyncio.gather(one.row(2), other.row(2))
