"""The page of a scan in a real browser: its marks, its slider, keys and paper."""

from collections.abc import Callable
from typing import Any

import pytest

from amsc.report.scan_page import scan_figures
from report.browser.test_pages import middle, until
from report.fixed_scan import REPAIRED

pytestmark = pytest.mark.browser
Open = Callable[..., Any]


def test_every_mark_tells_of_its_network_and_chooses_it(opened: Open) -> None:
    page, drawn = opened("scan"), scan_figures(REPAIRED)
    for chart in ("losses", "scores"):
        place = f'[data-chart="{chart}"]'
        page.locator(place).scroll_into_view_if_needed()
        marks = page.locator(f"{place} g.points path")
        assert marks.count() == len(drawn[chart])
        for number, mark in enumerate(drawn[chart]):
            page.mouse.move(*middle(marks.nth(number).bounding_box()))
            tip = page.locator(f'{place} g[aria-label="tip"] text', has_text=mark["name"])
            tip.wait_for(timeout=3000)
            page.mouse.down()
            page.mouse.up()
            assert page.locator("#readout").inner_text() == f"{mark['name']}: {mark['words']}."


def test_the_slider_rings_the_network_of_a_target_in_both_charts(opened: Open) -> None:
    page, drawn = opened("scan"), scan_figures(REPAIRED)
    slider = page.locator("#target")
    assert page.locator("#readout").inner_text().startswith("macs=30%: 30.0% of the MACs")
    for key, number in (("End", 0), ("Home", 2)):
        slider.press(key)
        until(page, f"document.getElementById('readout').textContent.startsWith('{drawn['path'][number]['name']}: ')")
    slider.fill("50")
    until(page, "document.getElementById('readout').textContent.startsWith('macs=50%')")
    for chart in ("losses", "scores"):
        ring = page.locator(f'[data-chart="{chart}"] circle.selected').bounding_box()
        (best,) = (i for i, m in enumerate(drawn[chart]) if (m["number"], m["phase"]) == (1, "finetune"))
        mark = page.locator(f'[data-chart="{chart}"] g.points path').nth(best).bounding_box()
        assert middle(ring) == pytest.approx(middle(mark), abs=1)


def test_keys_reach_it_and_paper_shows_all(opened: Open) -> None:
    page = opened("scan", color_scheme="dark")
    usable = page.locator("button:visible, input, summary, [tabindex='0']:visible").count()
    reached = set()
    for _ in range(usable + 1):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(reached) >= usable >= 4
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    assert not page.locator("#target").is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.print:not([open])").count() == 0


def test_without_scripts_the_numbers_are_there(opened: Open) -> None:
    page = opened("scan", java_script_enabled=False)
    assert "every number is in the tables" in page.locator("noscript").inner_text()
    assert page.locator("section[aria-labelledby=frontier] tbody tr").count() == len(REPAIRED.points)
