"""Every page in a real browser against the rules of axe-core: both languages, light, dark and narrow.

axe-core comes in the package axe-playwright-python, of which only that file is used.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
from test_comparison import judge_side, run_side
from test_judge_page import full
from test_report import sample_report

from quality_judge.comparison import render_comparison
from quality_judge.judge_page import render_judge_page
from quality_judge.pages import LANGUAGES
from quality_judge.report import render_report

PAGES = {
    "report": lambda language: render_report(sample_report(language)),
    "judge": lambda language: render_judge_page(*full(), language=language),
    "judges compared": lambda language: render_comparison(judge_side("a"), judge_side("b"), language=language),
    "runs compared": lambda language: render_comparison(run_side("a"), run_side("b"), language=language),
}
VIEWS = {"light": (1280, False), "dark": (1280, True), "narrow": (390, False)}
FAULTS = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(
    fault => fault.id + ': ' + fault.nodes.map(node => node.target.join(' ')).slice(0, 3).join(', ')))"""


@pytest.fixture(scope="session")
def axe():
    """The source of axe-core."""
    found = find_spec("axe_playwright_python")
    if found is None:
        pytest.skip("pip install --no-deps axe-playwright-python==0.1.8")
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def shown(browser, folder, page, width=1280, dark=False):
    """Opens `page` as a file; what its console complained of is in `browser.errors`."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    browser.errors.clear()
    browser.size(width, 900, dark=dark)
    browser.open(file.as_uri())


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_fault_and_the_console_is_silent(browser, axe, tmp_path, name, language, view):
    shown(browser, tmp_path, PAGES[name](language), *VIEWS[view])
    browser.ask(axe)
    assert browser.ask(FAULTS) == []
    assert browser.errors == []


@pytest.mark.parametrize("name", PAGES)
def test_a_narrow_screen_is_never_scrolled_sideways(browser, tmp_path, name):
    shown(browser, tmp_path, PAGES[name]("en"), 390)
    assert browser.ask("document.documentElement.scrollWidth") <= 390


def test_a_planted_fault_is_found(browser, axe, tmp_path):
    shown(browser, tmp_path, PAGES["report"]("en").replace("<main", '<img src="data:,"><main', 1))
    browser.ask(axe)
    assert [fault for fault in browser.ask(FAULTS) if fault.startswith("image-alt")]
