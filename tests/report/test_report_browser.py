"""The report in a real browser: the slider moves, nothing is fetched, nothing is complained of."""

import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.config.methods import TargetSupervisedSettings
from pipeline.config.params import Params
from pipeline.report.page import write_report
from tests.helpers.browser import Browser, browser, find_chromium
from tests.report import test_report
from tests.report.test_report import OUT

composed = test_report.composed
params = test_report.params

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here: 'make test-browser' installs Debian's, as root"
    ),
]

CLIPPED = "document.querySelector('.viewer .layer img').style.clipPath"
SLIDER = "document.querySelector('.viewer input')"
SEEN = """[...document.querySelectorAll('.viewer')[0].querySelectorAll('.layer')]
    .filter(layer => layer.offsetParent).map(layer => layer.querySelector('p').innerText.trim())"""


@pytest.fixture
def page(params: Params) -> Iterator[Browser]:
    """The report of the workspace, open in a window of 1200 x 900 pixels."""
    assert CHROMIUM
    write_report(params, OUT)
    with browser(CHROMIUM) as opened:
        opened.look(1200, 900)
        opened.open(OUT / "report.html")
        yield opened


def test_nothing_is_fetched_and_nothing_complained_of(page: Browser) -> None:
    for dark in (False, True):
        page.look(1200, 900, dark)
        page.run(f"{SLIDER}.value = 30; {SLIDER}.dispatchEvent(new Event('input'))")
    assert page.requests() == [(OUT / "report.html").resolve().as_uri()]
    assert page.complaints() == []


def test_a_request_and_an_error_would_be_noticed(page: Browser, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.html"
    wrong.write_text("<img src='missing.png'><script>throw new Error('told')</script>")
    page.open(wrong)
    page.wait("document.images[0].complete")
    assert (tmp_path / "missing.png").as_uri() in page.requests()
    assert "told" in str(page.complaints())


def test_the_slider_moves_with_the_keyboard(page: Browser) -> None:
    assert page.run(CLIPPED) == "inset(0px 50% 0px 0px)"
    page.run(f"{SLIDER}.focus()")
    for _ in range(10):
        page.press("ArrowRight", 39)
    assert page.run(CLIPPED) == "inset(0px 40% 0px 0px)"
    page.press("Home", 36)
    assert page.run(CLIPPED) == "inset(0px 100% 0px 0px)"
    assert page.run(f"{SLIDER}.getAttribute('aria-valuetext')").startswith("0 % degraded input")


def test_the_slider_moves_with_the_mouse(page: Browser) -> None:
    page.run(f"{SLIDER}.scrollIntoView({{block: 'center'}})")
    left, top, width, height = page.run(
        f"(r => [r.left, r.top, r.width, r.height])({SLIDER}.getBoundingClientRect())"
    )
    page.click(left + width / 4, top + height / 2)
    assert 15 < float(page.run(f"{SLIDER}.value")) < 30


def test_versions_can_be_chosen(page: Browser) -> None:
    assert page.run(SEEN) == ["degraded input 22.00 dB", "noise_space 25.00 dB"]
    page.run("""(select => { select.value = 3; select.dispatchEvent(new Event('input')) })
        (document.querySelectorAll('.viewer select')[1])""")
    assert page.run(SEEN) == ["degraded input 22.00 dB", "clean"]
    page.run("""(select => { select.value = 0; select.dispatchEvent(new Event('input')) })
        (document.querySelectorAll('.viewer select')[1])""")
    assert page.run(SEEN) == ["degraded input 22.00 dB"], "the same on both sides"


def test_light_and_dark(page: Browser) -> None:
    colours = []
    for dark in (False, True):
        page.look(1200, 900, dark)
        colours.append(page.run("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(22, 24, 27)"]


def test_curves_are_dark_with_the_page(page: Browser) -> None:
    filters = []
    for dark in (False, True):
        page.look(1200, 900, dark)
        filters.append(page.run("getComputedStyle(document.querySelector('img.curves')).filter"))
    assert filters[0] == "none" and filters[1].startswith("invert")


def test_all_results_fit_a_window(
    composed: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several seeds and the longest name, the widest they come."""
    longest = TargetSupervisedSettings("target_supervised", "pretrained")
    methods = {"vanilla": composed.methods["vanilla"], "target_supervised": longest}
    two = dataclasses.replace(composed, seeds=(0, 1), methods=methods)
    test_report.enter(tmp_path, monkeypatch)
    test_report.make_workspace(two)
    write_report(two, OUT)
    assert CHROMIUM
    with browser(CHROMIUM) as opened:
        opened.look(1200, 900)
        opened.open(OUT / "report.html")
        shown = "document.querySelector('#results ~ .scroll')"
        assert opened.run(f"{shown}.scrollWidth <= {shown}.clientWidth")


@pytest.mark.parametrize("width", [360, 390, 768, 1200])
def test_the_page_never_scrolls_sideways(page: Browser, width: int) -> None:
    page.look(width, 800)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_everything_can_be_reached_and_is_named(page: Browser) -> None:
    assert page.run("[...document.images].every(image => image.alt && image.naturalWidth > 1)")
    unnamed = """[...document.querySelectorAll('input, select, [role=region], [role=group]')]
        .filter(item => !item.getAttribute('aria-label') && !item.closest('label')).length"""
    assert page.run(unnamed) == 0
    assert page.run("document.querySelectorAll('[tabindex]:not([tabindex=\"0\"])').length") == 0
    levels = page.run("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_on_paper_all_versions_are_there(page: Browser, tmp_path: Path) -> None:
    page.print(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").stat().st_size > 10_000
    page.command("Emulation.setEmulatedMedia", media="print")
    assert len(page.run(SEEN)) == 6


def test_on_paper_closed_details_are_there(page: Browser) -> None:
    commands = "[...document.querySelectorAll('details table')].at(-1)"
    assert not page.run(f"{commands}.checkVisibility({{contentVisibilityAuto: true}})")
    page.command("Emulation.setEmulatedMedia", media="print")
    page.wait(f"{commands}.checkVisibility({{contentVisibilityAuto: true}})")
    assert page.run(f"{commands}.getBoundingClientRect().height > 20")
