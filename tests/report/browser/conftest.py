"""A real browser for the pages, where there is one: Debian's chromium, driven by Playwright."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amsc.bench import Method, Network, Recipe
from amsc.bench.page import render_bench
from amsc.bench.table import Entry
from amsc.report import render, render_comparison, render_scan
from report.fixed import bare_record, fixed_record, long_record
from report.fixed_scan import RECORD, REPAIRED

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NEEDED = "AMSC_NEEDS_BROWSER"
"""Continuous integration sets it: then a browser that is missing is a failure."""


def missing(what: str) -> None:
    """Skip, or fail where a browser is needed."""
    words = f"{what}; `apt-get install chromium` and `pip install 'amsc[browser]'` bring both"
    if os.environ.get(NEEDED):
        pytest.fail(words)
    pytest.skip(words)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser, started once."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing(f"there is no browser (looked for {', '.join(BROWSERS)})")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def bench_page() -> str:
    """Two methods and a control at two budgets, one cell of which failed."""

    def entry(method: str, budget: str, share: float, score: float | None, failed: tuple[str, ...] = ()) -> Entry:
        numbers = (0.01, -0.02, 0.01, 0.004, share, share)
        return Entry("net", method, budget, 1.0, "", 3, score, *numbers, {"1": 0.9, "64": 0.7}, failed)

    methods = {"default": Method(), "a method with a long name": Method(), "dense": Method(control="dense")}
    recipe = Recipe("digits", {"net": Network("net")}, methods, ("macs=60%", "macs=30%"), epochs=(1.0,))
    found = [
        entry("default", "macs=60%", 0.6, 0.9),
        entry("default", "macs=30%", 0.3, 0.85),
        entry("a method with a long name", "macs=60%", 0.59, 0.88),
        entry("a method with a long name", "macs=30%", 0.3, None, ("seed 0: TargetError: <b>it</b> cannot be met",)),
        entry("dense", "", 1.0, 0.92),
    ]
    return render_bench(found, recipe, score="accuracy")


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages that are opened, by name."""
    folder = tmp_path_factory.mktemp("pages")
    evil = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>"
    layers = fixed_record().layers
    texts = {
        "run": render(fixed_record()),
        "old": render(bare_record()),
        "long": render(long_record()),
        "evil": render(fixed_record(model=evil, layers=(type(layers[0])(evil, evil, 4, 2, 1, 1), *layers[1:]))),
        "scan": render_scan(REPAIRED),
        "plain-scan": render_scan(RECORD),
        "evil-scan": render_scan(dataclasses.replace(REPAIRED, model=evil, data=evil)),
        "bench": bench_page(),
        "compared": render_comparison(
            {"one": fixed_record(), "other": fixed_record(score_after=0.9), evil: bare_record()}
        ),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture
def opened(chromium: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """Opens a page by name; at the end of the test nothing may have been complained of or asked for."""
    contexts, complaints, asked = [], [], []

    def open_page(name: str, *, width: int = 1280, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(pages[name].as_uri())
        if options.get("java_script_enabled", True):
            page.locator("html[data-drawn=yes]").wait_for(state="attached", timeout=10_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
