"""Label files of every format become the same LabelSet, and every fault in them is named at once."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quality_judge.errors import InputError, LabelError
from quality_judge.labels import LabelSet, clean_labels, flatten, load_labels
from quality_judge.samples import CategoryRow, Preference, Ranking, Sample

REAL_DATA = Path(__file__).parents[2].parent / "shared" / "data"

MIXED = [
    {
        "prompt": "Why?",
        "completion": 'Because.\nIt is, "so".',
        "label": True,
        "id": "a",
        "weight": 2.0,
        "meta": {"k": 1},
    },
    {"text": "一段好的文字", "label": "坏", "annotator": 7, "source": "web"},
    {"prompt": "Q", "chosen": "better", "rejected": "worse", "annotator": "x"},
    {"prompt": "Q", "completions": ["first", "second\u2028half", "third"], "id": 3},
    {"text": "page", "labels": {"spam": 1, "hate": None, "junk": 0}},
]


def written(path: Path, rows: list, *, text: str | None = None) -> Path:
    lines = text if text is not None else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8")
    return path


def faults_of(*paths: Path) -> tuple[str, ...]:
    with pytest.raises(LabelError) as caught:
        load_labels(paths)
    return caught.value.faults


def fault_of(folder: Path, row: object) -> str:
    (fault,) = faults_of(written(folder / "x.jsonl", [row]))
    assert fault.startswith("x.jsonl:1: ")
    return fault


def table_rows() -> list[dict]:
    columns = list(dict.fromkeys(name for row in MIXED for name in row if name != "meta"))
    rows = [{name: row.get(name) for name in columns} for row in MIXED]
    for row in rows:
        for name in ("label", "annotator", "id"):
            row[name] = None if row[name] is None else str(row[name])
    return rows


def test_each_kind_is_told_by_its_columns(tmp_path):
    labels = load_labels([written(tmp_path / "mixed.jsonl", MIXED)])
    assert labels.samples == (
        Sample("Why?", 'Because.\nIt is, "so".', True, id="a", weight=2.0),
        Sample("", "一段好的文字", False, annotator="7", source="web"),
    )
    assert labels.preferences == (Preference("Q", "better", "worse", annotator="x"),)
    assert labels.rankings == (Ranking("Q", ("first", "second\u2028half", "third"), id="3"),)
    assert labels.categories == (CategoryRow("", "page", {"spam": True, "hate": None, "junk": False}),)
    assert labels.sample_origins == ("mixed.jsonl:1", "mixed.jsonl:2")
    assert labels.category_origins == ("mixed.jsonl:5",)
    assert len(labels) == 5
    assert labels.counts() == {
        "rows": 5, "samples": 2, "preferences": 1, "rankings": 1, "categories": 1, "desirable": 1, "undesirable": 2,
    }  # fmt: skip


def test_rows_of_every_kind_may_say_their_group_which_is_counted_and_changes_the_hash(tmp_path):
    grouped = load_labels(
        [written(tmp_path / "grouped.jsonl", [{**row, "group": at // 2} for at, row in enumerate(MIXED)])]
    )
    plain = load_labels([written(tmp_path / "plain.jsonl", MIXED)])
    assert [row.group for row in grouped.rows()] == ["0", "0", "1", "1", "2"]
    assert grouped.counts() == {**plain.counts(), "groups": 3}
    assert grouped.sha256 != plain.sha256


def test_all_formats_give_the_same_rows_and_hash(tmp_path):
    plain = load_labels([written(tmp_path / "a.jsonl", MIXED)])
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\r\n\r\n" for row in MIXED)
    written(tmp_path / "c.json", [], text="\ufeff" + json.dumps(MIXED, indent=1))
    written(tmp_path / "lines.json", MIXED)
    pq.write_table(pa.Table.from_pylist(table_rows()), tmp_path / "d.parquet")
    with (tmp_path / "e.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, table_rows()[0])
        writer.writeheader()
        for row in table_rows():
            packed = {name: json.dumps(row[name]) for name in ("completions", "labels") if row[name]}
            writer.writerow({**row, **packed})
    for name in ("b.jsonl.gz", "c.json", "lines.json", "d.parquet", "e.csv"):
        other = load_labels([tmp_path / name])
        assert other.rows() == plain.rows(), name
        assert other.sha256 == plain.sha256, name


def test_a_ranking_may_say_where_good_ends_in_every_format(tmp_path):
    """A > B | C: the first two are good. Parquet turns whole numbers beside a null into floats, CSV into text."""
    rows = [
        {"completions": ["a", "b", "c"], "cut": 2},
        {"completions": ["d", "e"]},
        {"completions": ["f", "g"], "cut": 0},
    ]
    written(tmp_path / "a.jsonl", rows)
    table = {"completions": [row["completions"] for row in rows], "cut": [2.0, None, 0.0]}
    pq.write_table(pa.table(table), tmp_path / "b.parquet")
    (tmp_path / "c.csv").write_text("completions,cut\n" + "".join(
        '"' + json.dumps(row["completions"]).replace('"', '""') + f'",{row.get("cut", "")}\n' for row in rows
    ))  # fmt: skip
    for name in ("a.jsonl", "b.parquet", "c.csv"):
        labels = load_labels([tmp_path / name])
        assert [row.cut for row in labels.rankings] == [2, None, 0], name
        assert (labels.counts()["desirable"], labels.counts()["undesirable"]) == (2, 3)
        np.testing.assert_array_equal(flatten(labels).label, [1, 1, 0, np.nan, np.nan, 0, 0])


@pytest.mark.parametrize("cut", [-1, 4, 1.5, True, "two", "nan", [1]])
def test_a_cut_that_is_no_number_of_the_rankings_texts_is_refused(tmp_path, cut):
    said = fault_of(tmp_path, {"completions": ["a", "b", "c"], "cut": cut})
    assert "cut is" in said
    assert "a whole number, 0 to 3" in said


def test_a_parquet_map_is_a_mapping_and_null_categories_do_not_change_the_hash(tmp_path):
    column = pa.array([[("spam", 1)], [("hate", 0)]], type=pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({"text": ["a", "b"], "labels": column}), tmp_path / "map.parquet")
    rows = [{"text": "a", "labels": {"spam": 1, "hate": None}}, {"text": "b", "labels": {"hate": 0, "spam": None}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "struct.parquet")
    by_map, by_struct = load_labels([tmp_path / "map.parquet"]), load_labels([tmp_path / "struct.parquet"])
    assert by_map.categories[0].categories == {"spam": True}
    assert by_map.sha256 == by_struct.sha256


def test_the_hash_depends_on_content_alone(tmp_path):
    one = load_labels([written(tmp_path / "one.jsonl", MIXED)])
    two = load_labels([written(tmp_path / "b.jsonl", MIXED[3:]), written(tmp_path / "a.jsonl", MIXED[:3])])
    assert one.sha256 == two.sha256
    changed = [{**MIXED[0], "label": False}, *MIXED[1:]]
    assert load_labels([written(tmp_path / "c.jsonl", changed)]).sha256 != one.sha256
    assert load_labels([written(tmp_path / "d.jsonl", [*MIXED, MIXED[0]])]).sha256 != one.sha256
    assert one.sha256 == LabelSet.of(one.rows(), one.origins()).sha256


def test_origins_count_lines_of_quoted_newlines_and_tell_equal_file_names_apart(tmp_path):
    text = 'completion,label\n"one\ntwo",1\n\n"three, ""so""",0\n'
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "x.csv", [], text=text)
    labels = load_labels([tmp_path / "a" / "x.csv"])
    assert labels.sample_origins == ("x.csv:2", "x.csv:5")
    assert [row.completion for row in labels.samples] == ["one\ntwo", 'three, "so"']
    both = load_labels([tmp_path / "a" / "x.csv", str(tmp_path / "b" / "x.csv")])
    assert len(set(both.sample_origins)) == 4


def test_a_csv_cell_may_be_longer_than_the_csv_module_allows_and_its_limit_is_put_back(tmp_path):
    usual = csv.field_size_limit()
    labels = load_labels([written(tmp_path / "x.csv", [], text=f"text,label\n{'word ' * 100_000},1\n")])
    assert len(labels.samples[0].completion) == 500_000
    assert csv.field_size_limit() == usual


def chat(*contents: str) -> list[dict]:
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]


SYSTEM = {"role": "system", "content": "be brief"}
ANSWER = [{"role": "assistant", "content": "good"}]
WRONG = [{"role": "assistant", "content": "bad"}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": chat("hi", "ho", "ask"), "completion": ANSWER, "label": 1}, Sample("hi\nho\nask", "good", True)),
        ({"completion": chat("ask", "good"), "label": 0}, Sample("ask", "good", False)),
        ({"completion": ANSWER, "label": 0}, Sample("", "good", False)),
        ({"prompt": "ask", "chosen": ANSWER, "rejected": WRONG}, Preference("ask", "good", "bad")),
        ({"chosen": chat("ask", "good"), "rejected": chat("ask", "bad")}, Preference("ask", "good", "bad")),
        ({"prompt": "ask", "chosen": chat("ask", "x"), "rejected": chat("ask", "y")}, Preference("ask", "x", "y")),
        (
            {"prompt": "ask ", "chosen": [SYSTEM, *chat("ask", "x")], "rejected": [SYSTEM, *chat("ask", "y")]},
            Preference("be brief\nask", "x", "y"),
        ),
        (
            {"prompt": "a", "chosen": chat("a", "b", "ask", "x"), "rejected": chat("a", "b", "ask", "y")},
            Preference("a\nb\nask", "x", "y"),
        ),
        ({"chosen": chat("a", "b", "c", "d"), "rejected": chat("a", "b", "c", "e")}, Preference("a\nb\nc", "d", "e")),
        ({"chosen": chat("a", "b", "c"), "rejected": chat("a", "b")}, Preference("a", "b\nc", "b")),
        ({"completions": [chat("ask", "x"), chat("ask", "y")]}, Ranking("ask", ("x", "y"))),
        ({"messages": chat("a", "b", "ask", "good"), "label": 1}, Sample("a\nb\nask", "good", True)),
    ],
)  # fmt: skip
def test_chats_become_text_and_what_they_share_becomes_the_prompt(tmp_path, row, expected):
    assert load_labels([written(tmp_path / "x.jsonl", [row])]).rows() == (expected,)
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    assert load_labels([tmp_path / "x.parquet"]).rows() == (expected,)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": chat("a", "b", "ask")}, "does not end with a message of the role assistant"),
        ({"messages": chat("ask", "good"), "prompt": "ask"}, "messages and prompt are both filled"),
        ({"messages": chat("ask", "good"), "text": "x"}, "messages and text are both filled"),
        ({"messages": "just a text"}, "does not end with a message of the role assistant"),
        ({"messages": [{"role": "assistant", "content": None}]}, "expected text, or chat messages"),
        ({"messages": chat("ask", " ")}, "messages is empty"),
    ],
)
def test_a_chat_that_is_not_one_judged_answer_is_refused(tmp_path, row, said):
    with pytest.raises(LabelError, match=said):
        load_labels([written(tmp_path / "x.jsonl", [row | {"label": 1}])])


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", "1.0", "true", " TRUE ", "good", "Good", "yes", "好", "是"])
def test_every_way_to_say_good_is_true(tmp_path, value):
    assert load_labels([written(tmp_path / "x.jsonl", [{"text": "t", "label": value}])]).samples[0].label is True


@pytest.mark.parametrize("value", [False, 0, 0.0, "0", "0.0", "false", "bad", "No", "坏", "否"])
def test_every_way_to_say_bad_is_false(tmp_path, value):
    assert load_labels([written(tmp_path / "x.jsonl", [{"text": "t", "label": value}])]).samples[0].label is False


SECRET = "secret row text that is long"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": SECRET, "label": "maybe"}, "label is 'maybe'; expected true or false, or one of: 1"),
        ({"text": "t", "label": SECRET}, "label is text of"),
        ({"text": "t", "label": 2}, "label is 2"),
        ({"text": "t", "label": float("nan")}, "label is nan"),
        ({"text": "t", "label": [SECRET]}, "label is a list of"),
        ({"text": SECRET}, "columns of no kind of label (filled: text)"),
        ({"text": SECRET, "label": None}, "columns of no kind of label (filled: text)"),
        ({"prompt": "p", "chosen": SECRET}, "filled: prompt, chosen"),
        ({SECRET: 1}, "filled: none of these"),
        ({"text": SECRET, "label": 1, "labels": {"a": 1}}, "columns of sample and categories at once"),
        ({"text": 5, "label": 1}, "text is int; expected text"),
        ({"completion": [{"role": "user"}], "label": 1}, "completion is a list"),
        ({"prompt": {"a": SECRET}, "completion": "c", "label": 1}, "prompt is an object"),
        ({"text": "", "label": 1}, "text is empty"),
        ({"completion": " \t\n\u3000", "label": 1}, "completion is empty"),
        ({"completion": "\u200b\ufeff\u3164\u2800\ufe0f\x00", "label": 1}, "invisible"),
        ({"chosen": "\u200b", "rejected": SECRET}, "chosen is empty"),
        ({"completions": [SECRET, ""]}, "completions[1] is empty"),
        ({"completions": [SECRET]}, "completions is a list of 1; expected a list of at least 2"),
        ({"completions": SECRET}, "completions is text"),
        ({"completions": '"' + SECRET + '"'}, "completions is text"),
        ({"chosen": SECRET, "rejected": SECRET}, "chosen and rejected are the same text"),
        ({"text": "t", "label": 1, "weight": 0}, "weight is 0; expected a number above 0"),
        ({"text": "t", "label": 1, "weight": -1.5}, "weight is -1.5"),
        ({"text": "t", "label": 1, "weight": True}, "weight is True"),
        ({"text": "t", "label": 1, "weight": SECRET}, "weight is text of"),
        ({"text": "t", "label": 1, "weight": float("inf")}, "weight is inf"),
        ({"text": "t", "label": 1, "annotator": [SECRET]}, "annotator is a list"),
        ({"text": "t", "labels": {"spam": "good"}}, "labels['spam'] is 'good'"),
        ({"text": "t", "labels": {"spam": 2}}, "labels['spam'] is 2"),
        ({"text": "t", "labels": {}}, "labels is an object; expected categories"),
        ({"text": "t", "labels": 1}, "labels is int; expected categories"),
        ({"completions": [SECRET, "b"], "labels": [True, False]}, "labels is filled in a ranking"),
        ({"completions": [SECRET, "b"], "label": False}, "label is filled in a ranking"),
        ({"chosen": SECRET, "rejected": "b", "label": 0}, "label is filled in a preference"),
        ({"completion": "a", "text": SECRET, "label": 1}, "completion and text are both filled and differ"),
        ([SECRET], "the row is a list"),
        (SECRET, "the row is text"),
    ],
)
def test_every_fault_of_a_row_is_named_with_its_line_and_without_row_text(tmp_path, row, words):
    fault = fault_of(tmp_path, row)
    assert words in fault
    assert SECRET not in fault


@pytest.mark.parametrize(
    "row",
    [
        {"completion": "a", "text": "", "label": 1}, {"completion": "a ", "text": "a", "label": 1},
        {"chosen": "a", "rejected": "b", "label": ""},
    ],
)  # fmt: skip
def test_an_empty_cell_or_the_same_text_contradicts_nothing(tmp_path, row):
    assert len(load_labels([written(tmp_path / "x.jsonl", [row])])) == 1


@pytest.mark.parametrize("value", ["张三住在朝阳区12号", "two words", "a-word-of-more-than-20-letters"])
def test_a_sentence_in_the_column_of_the_label_is_not_quoted(tmp_path, value):
    rows = {"label": value}, {"labels": {value: 2}}, {"label": 1, "weight": value}
    for row in rows:
        assert value not in fault_of(tmp_path, {"text": "t"} | row)
    assert "label is '不合格'" in fault_of(tmp_path, {"text": "t", "label": "不合格"})


def test_all_faults_of_all_files_are_raised_once(tmp_path):
    first = written(
        tmp_path / "a.jsonl", [], text='{"text": "t", "label": 1}\n{"text": "t", \n\n{"text": "", "label": "?"}\n'
    )
    second = written(tmp_path / "b.csv", [], text="text,label\none,1\ntwo\n,0\n")
    faults = faults_of(first, second, tmp_path / "none.jsonl")
    places = [fault.split(": ")[0] for fault in faults]
    assert places == ["a.jsonl:2", "a.jsonl:4", "a.jsonl:4", "b.csv:3", "b.csv:4", "none.jsonl"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.jsonl", b"", "holds no rows"),
        ("x.jsonl", b"\n \n", "holds no rows"),
        ("x.json", b"", "holds no rows"),
        ("x.json", b"[]", "holds no rows"),
        ("x.json", b'"a"', "text; expected a list"),
        ("x.json", b"[1,", "not valid JSON"),
        ("x.csv", b"", "holds no rows"),
        ("x.csv", b"text,label\n", "holds no rows"),
        ("x.csv", b"one,1\ntwo,0\n", "not a header"),
        ("x.csv", b"text,text,label\na,b,1\n", "not a header"),
        ("x.csv", b"text,label\n\xff,1\n", "not UTF-8"),
        ("x.csv", b'text,label\n"open,1\n', "x.csv:2: not valid CSV"),
        ("x.jsonl", b'{"text": "\xff", "label": 1}\n', "x.jsonl:1: not UTF-8"),
        ("x.jsonl", b"[" * 100_000 + b"\n", "x.jsonl:1: not usable JSON"),
        ("x.jsonl", b'{"label": ' + b"1" * 5000 + b"}\n", "x.jsonl:1: "),
        ("x.jsonl.gz", b"not gzip", "not gzip"),
        ("x.jsonl.gz", gzip.compress(b'{"text": "t", "label": 1}\n' * 50, mtime=0)[:-12], "cut short"),
        ("x.parquet", b"PAR1 no", "not a whole and readable Parquet file"),
        ("x.xlsx", b"PK", "unknown type of label file '.xlsx'"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_fault_too(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    (fault,) = faults_of(tmp_path / name)
    assert fault.startswith(name)
    assert words in fault


def test_a_missing_file_an_empty_folder_and_no_file_at_all_are_faults(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    assert "cannot be read" in faults_of(tmp_path / "none.csv")[0]
    assert "is a folder that holds no file" in faults_of(tmp_path / "folder.jsonl")[0]
    assert "cannot be read" in faults_of(tmp_path / "none.parquet")[0]
    assert faults_of() == ("no label file was given",)


def test_lone_surrogates_become_the_replacement_character(tmp_path):
    text = '{"prompt": "\\ud83d", "completion": "a\\udc00b \\ud83d\\ude00", "label": 1}\n'
    (row,) = load_labels([written(tmp_path / "x.jsonl", [], text=text)]).samples
    assert (row.prompt, row.completion) == ("\ufffd", "a\ufffdb 😀")


def test_a_parquet_file_without_label_columns_says_what_is_expected(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    assert "filled: none of these" in faults_of(tmp_path / "x.parquet")[0]


def test_a_label_set_refuses_rows_without_origins():
    with pytest.raises(InputError, match="one origin a row"):
        LabelSet(samples=(Sample("", "t", True),))


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real data sets (../shared/data) are not beside this repository")
def test_every_real_data_set_loads_and_can_train():
    files = sorted(REAL_DATA.glob("*/train.jsonl"))
    assert files
    for file in files:
        labels = load_labels([file])
        cleaned, report = clean_labels(labels, test=load_labels([file.with_name("test.jsonl")]))
        assert len(labels) == sum(1 for line in file.open("rb") if line.strip())
        assert report.errors == ()
        assert len(cleaned) > 0.8 * len(labels)


def test_rows_that_nobody_labelled_are_faults_unless_they_may_be_left_open(tmp_path):
    rows = [{"text": "one", "label": 1}, {"text": "two"}, {"text": "three", "label": None}]
    more = [{"text": "four", "label": ""}, {"completion": "five", "prompt": "Q", "strategy": "kept"}]
    file = written(tmp_path / "x.jsonl", rows + more)
    assert len(faults_of(file)) == 4
    assert [row.completion for row in load_labels([file], open_rows=True).rows()] == ["one"]
    with pytest.raises(LabelError, match=r"1 fault\(s\)"):
        load_labels([written(tmp_path / "y.jsonl", [{"prompt": "no text"}])], open_rows=True)
