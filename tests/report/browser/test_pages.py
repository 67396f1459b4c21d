"""The pages in a real browser: drawn, readable, accessible, and as quick as they should be."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from report.fixed import fixed_record, long_record

pytestmark = pytest.mark.browser
Open = Callable[..., Any]
WIDTHS = (360, 768, 1280)
EMPTY = "[...document.querySelectorAll('[data-chart]')].filter(c => !c.querySelector('svg :is(path, rect, circle)'))"


def axe() -> str:
    """The script of axe, which Playwright puts into a page."""
    import axe_playwright_python

    return Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")


def until(page: Any, expression: str) -> None:
    """Wait until it is true. Playwright's own way needs eval, which the page's policy forbids."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


def keep_picture(page: Any, name: str) -> None:
    """A picture to look at, where somebody wants one."""
    if folder := os.environ.get("AMSC_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [
        *(("run", scheme, width) for scheme in ("light", "dark") for width in WIDTHS),
        *(("scan", scheme, width) for scheme in ("light", "dark") for width in WIDTHS),
        ("plain-scan", "light", 768),
        *(("compared", scheme, width) for scheme, width in zip(("light", "dark", "dark"), WIDTHS, strict=True)),
        ("old", "light", 360),
        ("bench", "light", 360),
        ("bench", "dark", 1280),
        ("long", "dark", 768),
    ],
)
def test_a_page_is_drawn_fits_and_is_accessible(opened: Open, name: str, scheme: str, width: int) -> None:
    page = opened(name, width=width, color_scheme=scheme)
    assert page.evaluate(f"{EMPTY}.map(c => c.dataset.chart)") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.evaluate(axe())
    found = page.evaluate("axe.run(document)")
    assert len(found["passes"]) > 15, "axe has looked"
    assert [(each["id"], [node["target"] for node in each["nodes"]]) for each in found["violations"]] == []
    keep_picture(page, f"{name}-{scheme}-{width}")


def test_all_charts_are_there(opened: Open) -> None:
    page = opened("run")
    names = page.evaluate("[...document.querySelectorAll('[data-chart]')].map(c => c.dataset.chart)")
    assert names == [
        "frontier", "strip", "layers", "reconstruction", "norms-blocks", "norms-groups", "losses", "scores",
    ]  # fmt: skip
    record = fixed_record()
    assert page.locator('[data-chart="frontier"] g.points path').count() == len(record.path)
    assert page.locator('[data-chart="strip"] g.now rect').count() == len(record.layers)
    assert page.locator('[data-chart="layers"] >> text=gone').count() == 1
    assert page.locator('[data-chart="scores"] g.watched circle').count() == 2


def test_charts_follow_the_width(opened: Open) -> None:
    page = opened("run", width=1280)
    wide = page.locator('[data-chart="frontier"] svg').bounding_box()
    page.set_viewport_size({"width": 400, "height": 900})
    until(page, "document.querySelector('[data-chart=frontier] svg').clientWidth < 400")
    narrow = page.locator('[data-chart="frontier"] svg').bounding_box()
    assert narrow["width"] < 400 < wide["width"]
    assert page.locator('[data-chart="frontier"] circle.selected').count() == 1


def heights(page: Any) -> list[float]:
    """Of the columns of the strip."""
    found: list[float] = page.evaluate(
        "[...document.querySelectorAll('[data-chart=strip] g.now rect')].map(r => +r.getAttribute('height'))"
    )
    return found


def test_the_slider_shows_the_network_of_a_target(opened: Open) -> None:
    page, record = opened("run"), fixed_record()
    slider, readout = page.locator("#target"), page.locator("#readout")
    assert readout.inner_text().startswith("finetune 3: 49.9% of the multiply-adds")
    for key, point in (("End", record.path[0]), ("Home", record.path[3])):
        slider.press(key)
        until(page, f"document.getElementById('readout').textContent.startsWith('{point.phase} ')")
        assert f"{point.blocks_left} of 3 blocks and {point.channels_left} of 112 channels left" in readout.inner_text()
        assert f"{point.phase} {point.index}" in slider.get_attribute("aria-valuetext")
        widths = [layer.along_path[point.index] for layer in record.layers]
        unit = max(heights(page)) / max(widths)
        assert heights(page) == pytest.approx([width * unit for width in widths], abs=0.6)
    slider.fill("80")
    until(page, "document.getElementById('readout').textContent.startsWith('depth 1')")
    assert page.locator("#target-value").inner_text() == "80.0%"
    ring = page.locator('[data-chart="frontier"] circle.selected').bounding_box()
    mark = page.locator('[data-chart="frontier"] g.points path').nth(1).bounding_box()
    assert middle(ring) == pytest.approx(middle(mark), abs=1)


def middle(box: dict[str, float]) -> tuple[float, float]:
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_every_point_tells_of_itself_and_can_be_chosen(opened: Open) -> None:
    page, record = opened("run"), fixed_record()
    page.locator('[data-chart="frontier"]').scroll_into_view_if_needed()
    marks = page.locator('[data-chart="frontier"] g.points path')
    for number, point in enumerate(record.path[:3]):  # the last lies below the third
        page.mouse.move(*middle(marks.nth(number).bounding_box()))
        tip = page.locator('[data-chart="frontier"] g[aria-label="tip"] text', has_text=f"{point.phase} {point.index}")
        tip.wait_for(timeout=3000)
        page.mouse.down()
        page.mouse.up()
        assert page.locator("#readout").inner_text().startswith(f"{point.phase} {point.index}:")


BRIGHTNESS = """([kind, name]) => {
  const one = document.querySelector(`[data-chart=frontier] g[aria-label=tip] ${kind}`);
  const [red, green, blue] = getComputedStyle(one)[name].match(/[0-9.]+/g).map(Number);
  return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_pointing_shows_can_be_read(opened: Open, scheme: str) -> None:
    page = opened("run", color_scheme=scheme)
    page.locator('[data-chart="frontier"]').scroll_into_view_if_needed()
    page.mouse.move(*middle(page.locator('[data-chart="frontier"] g.points path').first.bounding_box()))
    page.locator('[data-chart="frontier"] g[aria-label="tip"] text').wait_for(timeout=3000)
    paper, ink = (page.evaluate(BRIGHTNESS, [kind, "fill"]) for kind in ("path", "text"))
    assert (paper > 0.9 and ink < 0.3) if scheme == "light" else (paper < 0.25 and ink > 0.8)


def test_keys_reach_everything_that_can_be_used(opened: Open) -> None:
    page = opened("run")
    usable = page.locator("button:visible, input, summary, [tabindex='0']:visible").count()
    reached = set()
    for _ in range(usable + 1):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(reached) >= usable


def test_colours_can_be_chosen_and_code_be_copied(opened: Open) -> None:
    page = opened("run", color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Dark colours").click()
    assert page.evaluate(background) != light
    page.get_by_role("button", name="Light colours").click()
    assert page.evaluate(background) == light
    page.get_by_role("button", name="Copy").click()
    until(page, "/Copied|copy/.test(document.querySelector('button[data-copies]').textContent)")
    assert page.evaluate("getSelection().toString()").strip() == page.locator("#code").inner_text().strip()


def test_on_paper_it_is_light_and_unfolded(opened: Open) -> None:
    page = opened("run", color_scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    pdf = page.pdf()
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    assert not page.locator("#target").is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.print:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.print[open]").count() == 0
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 2
    if folder := os.environ.get("AMSC_SCREENSHOTS"):
        (Path(folder) / "run.pdf").write_bytes(pdf)


def test_without_scripts_the_numbers_are_there(opened: Open) -> None:
    page = opened("run", java_script_enabled=False)
    assert "every number is in the tables" in page.locator("noscript").inner_text()
    assert page.locator("table.costs tbody tr").count() == 8


def test_names_do_no_harm(opened: Open) -> None:
    for name in ("evil", "compared", "evil-scan"):
        page = opened(name)
        assert page.evaluate("window.hurt") is None
        assert page.locator("img").count() == 0
        assert "window.hurt" in page.locator("body").inner_text()


def test_scripts_that_are_not_the_pages_own_do_not_run(opened: Open, chromium: Any, pages: dict[str, Path]) -> None:
    """Should a name become markup after all."""
    page = pages["run"].with_name("injected.html")
    page.write_text(
        pages["run"].read_text(encoding="utf-8").replace("</main>", "<script>window.hurt = 1</script></main>")
    )
    context = chromium.new_context()
    shown = context.new_page()
    shown.goto(page.as_uri())
    assert shown.evaluate("[window.hurt, document.documentElement.dataset.drawn]") == [None, "yes"]
    context.close()


def test_two_hundred_points_open_within_a_second(opened: Open) -> None:
    """The best of three, as others may be busy on this machine."""
    seconds = []
    for _ in range(3):
        page = opened("long")
        seconds.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
        assert page.locator('[data-chart="frontier"] g.points path').count() == 200
    assert min(seconds) < 1


PICTURE = 34
"""Milliseconds for each of thirty pictures a second."""
SWEEP = """async () => {
  const slider = document.getElementById("target"), texts = new Set(), frames = [];
  for (let step = 0; step <= 200; step++) {
    slider.value = 100 - (85 * step) / 200;
    const start = performance.now();
    slider.dispatchEvent(new Event("input"));
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    frames.push((performance.now() - start) / 2);
    texts.add(document.getElementById("readout").textContent);
  }
  return { texts: texts.size, median: frames.sort((a, b) => a - b)[100] };
}"""


def test_two_hundred_points_follow_the_slider_smoothly(opened: Open) -> None:
    page = opened("long")
    sweep = page.evaluate(SWEEP)
    assert sweep["texts"] > 180, "nearly every point has a target among these"
    if sweep["median"] >= PICTURE:  # others may have been busy
        sweep = page.evaluate(SWEEP)
    assert sweep["median"] < PICTURE
    assert len(long_record().path) == 200
