"""A page in headless Chromium: what it asks for, what it complains of, and whether everybody can use it."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, TABLET, PHONE = (1440, 900), (820, 1180), (390, 844)


def why_no_browser() -> str | None:
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    if importlib.util.find_spec("axe_playwright_python") is None:
        return "axe-playwright-python is not installed"
    if not any(map(shutil.which, CHROMIUM)):
        return f"no browser: none of {', '.join(CHROMIUM)} is installed"
    return None


@contextlib.contextmanager
def started() -> Iterator[Any]:
    """Chromium. Skips the test, with the reason, where there is none."""
    if reason := why_no_browser():
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = next(found for name in CHROMIUM if (found := shutil.which(name)))
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # root has no sandbox
        yield chromium
        chromium.close()


@contextlib.contextmanager
def opened(browser: Any, file: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Iterator[Any]:
    """The page once it has drawn itself. At the end it must not have complained, nor asked for anything but itself."""
    touch = size == PHONE
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, has_touch=touch, reduced_motion="reduce"
    )
    page = context.new_page()
    complaints: list[str] = []

    def asked(request: Any) -> None:
        if request.url != file.as_uri() and not request.url.startswith("data:"):
            complaints.append(f"asks for {request.url}")

    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", asked)
    page.set_default_timeout(120_000)  # of machines that do other things besides
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]", state="attached")
    yield page
    context.close()
    assert not complaints, complaints


def until(page: Any, expression: str, seconds: float = 60.0) -> None:
    """Wait for it to become true. Playwright's own way has the page evaluate a string, which its policy forbids."""
    for _ in range(int(seconds / 0.01)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(10)
    raise AssertionError(f"never true: {expression}")


def click(page: Any, selector: str, nth: int = 0, across: float = 0.5, down: float = 0.5) -> None:
    """A click of the mouse on what `selector` finds, at once where Playwright would wait until it has stood still."""
    box = page.evaluate(
        """([selector, nth]) => {
          const found = document.querySelectorAll(selector)[nth];
          found.scrollIntoView({block: 'center', inline: 'center'});
          const {left, top, width, height} = found.getBoundingClientRect();
          return [left, top, width, height];
        }""",
        [selector, nth],
    )
    page.mouse.click(box[0] + across * box[2], box[1] + down * box[3])


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['help']}: {node['html'][:200]}" for v in found for node in v["nodes"][:3]]
