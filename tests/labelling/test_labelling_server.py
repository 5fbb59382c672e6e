"""The server over HTTP: who may speak to it, several experts at once, and what becomes of their answers."""

import http.client
import json
import threading
from urllib.parse import urlsplit

import pytest
from labelling_server import RUBRIC

from quality_judge.errors import InputError
from quality_judge.labelling.app import Invitations, preferred
from quality_judge.labelling.page import paragraphs, render_page
from quality_judge.labels import load_labels
from quality_judge.labels.questions import MODES
from quality_judge.rubric import Rubric


def raw(link, method="GET", path="", body=None, **headers):
    """(status, headers) of a request with exactly these headers."""
    parts = urlsplit(link)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request(
        method, parts.path + path, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    response = connection.getresponse()
    response.read()
    return response.status, dict(response.getheaders())


def test_only_the_link_as_it_was_printed_opens_the_page_and_nothing_of_a_row_is_logged(serve, drawn, tmp_path):
    server = serve(drawn(3), tmp_path / "labels.jsonl")
    status, headers = raw(server.link)
    assert status == 200
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert raw(server.link, path="label.js")[0] == 200
    port = urlsplit(server.link).port
    assert raw(server.link, Host=f"evil.example:{port}")[0] == 403
    assert raw(server.link, Host="127.0.0.1")[0] == 403
    assert raw(server.link, "POST", "next", "{}", Origin="http://evil.example")[0] == 403
    assert raw(server.link, "POST", "next", "x" * 70_000)[0] == 413
    assert raw(server.link[:-2] + "x/")[0] == 404
    assert raw(f"http://127.0.0.1:{port}/")[0] == raw(f"http://127.0.0.1:{port}/docs")[0] == 404
    assert raw(server.link, path="store.py")[0] == raw(server.link, path="..%2fapp.py")[0] == 404
    for said in ({}, {"annotator": " "}, {"annotator": "a\nb" * 40}, {"annotator": 5}):
        assert server.ask("next", **said)[0] == 400
    question = server.ask("next", annotator="Ann")[1]["question"]
    for wrong in ("yes", 1, [], {"order": [0], "cut": None}):
        status, said = server.ask("answer", annotator="Ann", key=question["key"], answer=wrong)
        assert (status, said) == (400, {"error": "this is no answer to a question of mode good-bad"})
    assert server.ask("answer", annotator="Ann", key="unknown", answer=True)[0] == 400
    assert server.ask("answer", annotator="Ann", key=question["key"], answer=True, note="x" * 3000)[0] == 400
    assert (tmp_path / "labels.jsonl").read_text() == ""
    assert "text 0" not in server.log.read_text()


def test_experts_at_once_each_under_their_own_name_lose_nothing_and_see_how_far_they_agree(serve, drawn, tmp_path):
    rows, output = drawn(24), tmp_path / "labels.jsonl"
    server = serve(rows, output, "--annotator", "Ann", "--annotator", "李雷")
    faults = []

    def label(name, flip):
        said = server.ask("next", server.links[name], annotator="somebody else")[1]
        while question := said["question"]:
            good = question["texts"][0].startswith("Good") ^ flip(question["texts"][0])
            status, said = server.ask("answer", server.links[name], key=question["key"], answer=good, seconds=1.25)
            faults.extend([] if status == 200 else [said])

    flips = {"Ann": lambda text: False, "李雷": lambda text: "text 7:" in text}
    threads = [threading.Thread(target=label, args=item) for item in flips.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    samples = load_labels([output]).samples
    assert sorted((row.annotator, int(row.id)) for row in samples) == [
        (n, i) for n in ("Ann", "李雷") for i in range(24)
    ]
    said = server.ask("next", server.links["Ann"])[1]
    assert (said["done"], said["experts"], said["agreement"]["rows"]) == (24, 2, 24)
    assert said["agreement"]["alpha"] == pytest.approx(1 - (1 / 24) / (2 * 31 * 17 / (48 * 47)))
    undone = server.ask("undo", server.links["Ann"])[1]
    assert (undone["undone"], undone["done"]) == (True, 23)
    assert len(load_labels([output])) == 47
    server.end()
    assert server.process.returncode == 0
    assert json.loads(server.log.read_text().splitlines()[-1])["labels"] == 47


def test_with_so_many_a_row_the_work_is_shared_and_an_open_row_is_given_to_nobody_else(serve, drawn, tmp_path):
    server = serve(drawn(4), tmp_path / "labels.jsonl", "--per-row", 1)
    first, second = (server.ask("next", annotator=name)[1]["question"]["key"] for name in ("Ann", "Bo"))
    assert first != second
    assert server.ask("next", annotator="Ann")[1]["question"]["key"] == first
    for _ in range(2):
        key = server.ask("next", annotator="Ann")[1]["question"]["key"]
        server.ask("answer", annotator="Ann", key=key, answer=True)
    key = server.ask("next", annotator="Ann")[1]["question"]["key"]
    after = server.ask("answer", annotator="Ann", key=key, answer=None)[1]  # a row that was skipped is free again
    assert (after["question"], after["done"], after["skipped"]) == (None, 3, 1)
    seen = []
    said = server.ask("next", annotator="Bo")[1]
    while question := said["question"]:
        seen.append(question["key"])
        said = server.ask("answer", annotator="Bo", key=question["key"], answer=False)[1]
    assert sorted(seen) == sorted([second, key])
    assert len(load_labels([tmp_path / "labels.jsonl"]).samples) == 4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_of_every_mode_escapes_its_rubric_and_names_its_keys(mode, language):
    rubric = Rubric.load(RUBRIC).model_copy(update={"name": "<script>alert(1)</script>", "good": "保留 & <keep>"})
    page = render_page(mode, rubric, annotator='</script><b>"', language=language)
    assert "<script>alert" not in page
    assert "<b>&" not in page
    assert "</script><b>" not in page
    assert page.count("<kbd>") > 8
    assert ("保留 &amp; &lt;keep&gt;" in page) == (mode == "good-bad")
    with pytest.raises(InputError, match="unknown language"):
        render_page(mode, rubric, annotator=None, language="fr")


def test_lines_that_were_only_wrapped_are_one_and_lists_stay(tmp_path):
    long = "x" * 70
    assert paragraphs(f"{long}\nend\n\n{long}\n- one\n- two\n\n短\n行") == [
        f"{long} end",
        f"{long}\n- one\n- two",
        "短\n行",
    ]
    assert paragraphs("字" * 60 + "\n字") == ["字" * 61]


def test_a_browser_gets_its_language_and_two_experts_never_share_a_name():
    assert [preferred(said) for said in ("zh-CN,zh;q=0.9,en;q=0.8", "en-US,zh", "fr, zh", "")] == [
        "zh",
        "en",
        "zh",
        "en",
    ]
    with pytest.raises(InputError, match="same name"):
        Invitations.to(["Ann", " Ann "])
    assert len(next(iter(Invitations.to().names))) >= 32


def test_rows_that_cannot_be_asked_are_all_named_and_none_of_their_text(tmp_path):
    from quality_judge.errors import LabelError
    from quality_judge.labels.questions import read_questions

    path = tmp_path / "rows.jsonl"
    texts = [["secret", "secret"], ["secret"], ["a", "b"]]
    path.write_text("".join(json.dumps({"completions": each}) + "\n" for each in texts) + '{"label": 1}\n')
    with pytest.raises(LabelError) as raised:
        read_questions([path], "pair")
    assert [fault.split(":")[1] for fault in raised.value.faults] == ["1", "2", "4"]
    assert "secret" not in str(raised.value)
