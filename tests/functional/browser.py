# SPDX-License-Identifier: Apache-2.0
"""Debian's Chromium, without a window, on a profile of its own; and a visit that keeps record."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from cepheid import concurrency
from tests.functional.processes import PATIENCE_SECONDS, SYSTEM_PATH, require

PROGRAM = "chromium"

#: It is to run as root, without a screen, and to ask nobody for anything.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

#: What the browser itself says in the console of an answer that is not 2xx, or of none.
NETWORK_ERROR = "Failed to load resource"

WIDE = (1440, 1000)
PHONE = (360, 780)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; its profile goes with it."""
    require(PROGRAM)
    if concurrency.is_green():
        pytest.skip("Playwright needs native threads: CEPHEID_TEST_CONCURRENCY=threading")
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which(PROGRAM, path=SYSTEM_PATH), args=list(FLAGS)
        )
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page in a context of its own, and what it asked for and complained about."""

    def __init__(
        self, browser: Browser, url: str, size: tuple[int, int] = WIDE, scheme: Any = "light"
    ) -> None:
        self.url = url
        self.errors: list[str] = []
        self.requests: list[str] = []
        width, height = size
        self._context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, timezone_id="UTC"
        )
        self._context.on("request", lambda request: self.requests.append(request.url))
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(PATIENCE_SECONDS * 1000)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and NETWORK_ERROR not in message.text:
            self.errors.append(message.text)

    def hosts(self) -> set[str]:
        """Return whom it has asked."""
        return {urlsplit(url).netloc for url in self.requests if not url.startswith("data:")}

    def violations(self) -> list[str]:
        """Return what axe finds wrong for people who do not see well, or use no mouse."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {one['help']}: {node['html'][:200]} {node['failureSummary']}"
            for one in found
            for node in one["nodes"]
        ]

    def close(self) -> None:
        self._context.close()
