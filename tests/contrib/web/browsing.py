"""A real browser: Debian's Chromium, driven by Playwright, on a page that a real uvicorn serves."""

from __future__ import annotations

from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from shutil import which
from typing import Any

import axe_playwright_python
from playwright.async_api import Browser, Page, async_playwright
from starlette.types import ASGIApp

from tests.contrib.support import under_uvicorn

CHROMIUM = which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    *("--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """One browser, until the end of the block."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


class Visit:
    """A page that is looked at, with what went wrong there."""

    def __init__(self, page: Page, port: int) -> None:
        self.page = page
        self.port = port
        self.wrong: list[str] = []
        self.expected: tuple[str, ...] = ()
        """What may be said in the console: of a connection that a test has cut, for example."""
        own = f"http://127.0.0.1:{port}/"
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((own, "blob:", "data:"))
                else self.wrong.append(f"asked {request.url}")
            ),
        )

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(one in text for one in self.expected):
            self.wrong.append(f"{kind}: {text}")

    async def open(self, hash: str = "") -> None:
        """Open the page, and wait for its first records."""
        await self.page.goto(f"http://127.0.0.1:{self.port}/{hash}")

    async def sequences(self) -> list[int]:
        """The sequences of the rows, from the top."""
        found: list[int] = await self.page.evaluate(
            "[...document.querySelectorAll('#rows tr[data-sequence]')]"
            ".map((row) => Number(row.dataset.sequence))"
        )
        return found

    async def row(self, sequence: int) -> None:
        """Wait for the row of a record."""
        await self.page.wait_for_selector(f'#rows tr[data-sequence="{sequence}"]', timeout=10_000)

    async def until(self, expression: str) -> None:
        """Wait until an expression is true there.

        Asked from outside: what Playwright has the page ask itself, the page's policy forbids.
        """
        async with timeout(30):
            while not await self.page.evaluate(expression):
                await self.page.wait_for_timeout(20)

    async def text(self, selector: str) -> str:
        return await self.page.inner_text(selector)

    async def live(self) -> None:
        """Wait until the page is connected."""
        await self.page.wait_for_selector('#link[data-state="good"]', timeout=10_000)

    async def faults(self) -> list[str]:
        """What axe-core finds that is serious."""
        await self.page.evaluate(AXE.read_text())
        found: dict[str, Any] = await self.page.evaluate(
            "axe.run({resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a',"
            " 'wcag21aa', 'wcag22aa', 'best-practice']})"
        )
        return [
            f"{one['id']} ({one['impact']}): {[node['html'][:200] for node in one['nodes']][:3]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical", "moderate")
        ]


@asynccontextmanager
async def visit(
    browser: Browser, app: ASGIApp, *, port: int | None = None, **options: Any
) -> AsyncIterator[Visit]:
    """A page of the application; at the end nothing may have gone wrong there.

    With a port, the application is served there by somebody else.
    """
    async with AsyncExitStack() as stack:
        if port is None:
            port = await stack.enter_async_context(under_uvicorn(app, timeout_graceful_shutdown=1))
        context = await browser.new_context(**{"viewport": DESKTOP, **options})
        stack.push_async_callback(context.close)
        visited = Visit(await context.new_page(), port)
        yield visited
        assert visited.wrong == []
