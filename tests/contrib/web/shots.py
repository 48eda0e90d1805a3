"""Pictures of the page, to be looked at: ``python -m tests.contrib.web.shots DIRECTORY``.

A store with real log lines, at work, on a desktop and a phone, in the light and in the dark: the
page, its log, the completion of a label, and a record.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Literal

from playwright.async_api import Browser

from aquipu import EveryN, Store
from aquipu.contrib.web.app import app
from tests.cli.support import LINES
from tests.contrib.support import under_uvicorn
from tests.contrib.web.browsing import DESKTOP, PHONE, Visit, chromium, visit

_REQUEST = re.compile(r'"(\w+) (\S+) HTTP/1.1" status: (\d+) len: (\d+) time: ([\d.]+)')
_SIZES = {"desktop": DESKTOP, "phone": PHONE}
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_WAIT = 4000  # milliseconds, in which the charts get something to show


async def at_work(store: Store) -> None:
    """Append what a service would, until this is cancelled."""
    chance = Random(7)
    while True:
        for line in chance.choices(LINES, k=chance.randint(0, 6)):
            text = line.decode().strip()
            found = _REQUEST.search(text)
            if found is None:
                await store.append(text.encode(), relations=["kind:message"])
                continue
            method, path, status, size, seconds = found.groups()
            value = {"method": method, "path": path, "status": int(status), "bytes": int(size)}
            labels = [f"method:{method}", f"status:{status}", f"user:{chance.randint(1, 40)}"]
            await store.append_json({**value, "seconds": float(seconds)}, relations=labels)
        await asyncio.sleep(0.15)


async def shoot(page: Visit, store: Store, directory: Path, name: str) -> None:
    """Take the pictures of one size and colour."""

    async def save(what: str) -> None:
        await page.page.screenshot(path=directory / f"{name}-{what}.png")

    await page.open()
    await page.live()
    await page.page.wait_for_timeout(_WAIT)
    await save("page")
    await page.page.evaluate("document.querySelector('#log').scrollIntoView()")
    await save("log")
    await page.page.locator("#label").press_sequentially("user:")
    await page.page.wait_for_selector("#offers li")
    await save("labels")
    await page.page.evaluate(f"location.hash = 'record={store.next_sequence - 1}'")
    await page.page.wait_for_selector("#detail[open]")
    await save("record")


async def main(directory: Path) -> None:
    """Take all pictures."""
    with TemporaryDirectory() as place:
        async with (
            Store.open(Path(place) / "audit", sync_policy=EveryN(64)) as store,
            chromium() as one,
        ):
            working = asyncio.create_task(at_work(store))
            await store.append(b"the first")
            await store.cursor("billing").save(1)
            await _all(one, store, directory)
            working.cancel()
            await asyncio.wait([working])


async def _all(browser: Browser, store: Store, directory: Path) -> None:
    application = app(store)
    async with under_uvicorn(application, timeout_graceful_shutdown=1) as port:
        for size, viewport in _SIZES.items():
            for scheme in _SCHEMES:
                async with visit(
                    browser,
                    application,
                    port=port,
                    viewport=viewport,
                    color_scheme=scheme,
                    device_scale_factor=2,
                ) as page:
                    await shoot(page, store, directory, f"{size}-{scheme}")


if __name__ == "__main__":
    asked = Path(sys.argv[1])
    asked.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(asked))
