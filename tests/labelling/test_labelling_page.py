"""The labelling page in a real browser, by the keyboard alone, and what is on disk when the server is killed."""

import json

import pytest
from labelling_server import RUBRIC

from quality_judge.labels import load_labels

SHOWN = "document.querySelector('#texts .row-text')?.textContent"
DONE = "document.querySelector('#bar').getAttribute('aria-valuenow')"


def begin(browser, link, name):
    browser.open(link)
    browser.wait("document.querySelector('#name-box').open")
    browser.ask("document.querySelector('#name').value = ''")
    browser.ask("document.querySelector('#name').focus()")
    browser.write(name)
    browser.press("Enter")
    browser.wait(f"!document.querySelector('#name-box').open && {SHOWN}")


def judged(browser):
    """Presses g or b as the text on the screen deserves, and waits for the next; gives the number of its row."""
    text = browser.ask(SHOWN)
    before = int(browser.ask(DONE))
    browser.press("g" if text.startswith("Good") else "b")
    browser.wait(f"{DONE} === '{before + 1}'")
    return text.split()[2].rstrip(":")


def forget(browser):
    browser.ask("localStorage.clear()")


def test_an_expert_labels_100_rows_by_keyboard_alone_and_a_kill_in_the_middle_loses_none(
    serve, browser, drawn, tmp_path
):
    rows, output = drawn(101), tmp_path / "labels.jsonl"
    server = serve(rows, output, "--rubric", RUBRIC)
    begin(browser, server.link, "李雷 Li Lei")
    said = [judged(browser) for _ in range(40)]
    browser.press("u")
    browser.wait(f"{DONE} === '39'")
    assert browser.ask(SHOWN).startswith(("Good text 39:", "Poor text 39:"))
    browser.press("n")
    browser.write("撤销 then judged again")
    browser.press("Enter", "b")
    browser.wait(f"{DONE} === '40'")
    browser.press("s")
    browser.wait(f"{DONE} === '41'")
    server.kill()
    assert [row["id"] for row in map(json.loads, output.read_text(encoding="utf-8").splitlines())] == said
    browser.press("g")
    browser.wait("!document.querySelector('#error').hidden")  # said plainly, and the row stays
    assert browser.ask(SHOWN).split()[2] == "41:"

    server = serve(rows, output, "--rubric", RUBRIC)
    begin(browser, server.link, "李雷 Li Lei")
    assert browser.ask(DONE) == "41"
    for _ in range(60):
        judged(browser)
    browser.wait("!document.querySelector('#finished').hidden")
    labels = load_labels([output])
    assert len(labels.samples) == 100
    assert {row.annotator for row in labels.samples} == {"李雷 Li Lei"}
    wrong = [row.id for row in labels.samples if row.label != row.completion.startswith("Good")]
    assert wrong == []
    kept = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert {row["inclusion_probability"] for row in kept} == {0.25}
    assert [row["id"] for row in kept if "note" in row] == ["39"]
    assert browser.ask("document.querySelectorAll('#texts b').length") == 0
    assert "text" not in server.log.read_text().split("http")[-1]


def test_a_ranking_is_made_by_letters_or_by_dragging_and_a_number_cuts_it(serve, browser, tmp_path):
    rows, output = tmp_path / "rows.jsonl", tmp_path / "ranks.jsonl"
    texts = ["first", "second", "third", "fourth"]
    asked = [{"prompt": f"Order them {at}", "completions": texts} for at in range(2)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    server = serve(rows, output, "--annotator", "Ann")
    browser.open(server.links["Ann"])
    panels = "[...document.querySelectorAll('#texts .row-text')].map(each => each.textContent)"
    browser.wait(f"{panels}.length === 4")
    shown = browser.ask(panels)
    browser.press(*("abcd"[shown.index(text)] for text in texts[:3]), "2", "Enter")
    browser.wait(f"{DONE} === '1'")
    shown = browser.ask(panels)
    box = "document.querySelectorAll('#texts .handle')[{}].getBoundingClientRect()"
    y = [browser.ask(f"{box.format(at)}.top + {box.format(at)}.height / 2") for at in range(4)]
    browser.mouse("mousePressed", 50, y[3])
    for at in (3, 2, 1, 0):
        browser.mouse("mouseMoved", 50, y[at] - 10)
    browser.mouse("mouseReleased", 50, y[0] - 10)
    assert browser.ask(panels) == [shown[3], *shown[:3]]
    browser.press("Enter")
    browser.wait(f"{DONE} === '2'")
    first, second = load_labels([output]).rankings
    assert (first.completions, first.cut, first.annotator) == (tuple(texts), 2, "Ann")
    assert (second.completions, second.cut) == ((shown[3], *shown[:3]), None)


@pytest.mark.parametrize(("mode", "keys"), [("pair", ["a"]), ("categories", ["1", "2", "2", "Enter"])])
def test_pairs_and_categories_are_judged_by_keys(serve, browser, tmp_path, mode, keys):
    rows, output = tmp_path / "rows.jsonl", tmp_path / f"{mode}.jsonl"
    row = {"completions": ["مرحبا بالعالم", "你好"]} if mode == "pair" else {"completion": "مرحبا بالعالم"}
    rows.write_text(json.dumps({"prompt": "Hello", **row}), encoding="utf-8")
    server = serve(rows, output, "--annotator", "Ann", "--rubric", RUBRIC, "--mode", mode)
    browser.open(server.link + "?lang=zh")
    browser.wait(f"{SHOWN}?.length > 0")
    shown = browser.ask(SHOWN)
    browser.press(*keys)
    browser.wait("!document.querySelector('#finished').hidden")
    (label,) = load_labels([output]).rows()
    if mode == "pair":
        assert label.chosen == shown
    else:
        assert [code for code, applies in label.categories.items() if applies] == ["boilerplate"]
        assert len(label.categories) == 17
    assert [each for each in browser.errors if "Failed to load" not in each and "ERR_" not in each] == []
