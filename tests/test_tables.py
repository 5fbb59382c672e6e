"""Tables read without Spark: every cell as the file has it, however long its texts are."""

import json

import pytest

from quality_judge.tables import read_table


def test_csv_keeps_names_that_look_like_numbers_and_texts_of_many_lines(tmp_path):
    text = "\n".join(["one, line"] * 40_000)
    (tmp_path / "a.csv").write_text(
        f'id,lang,text\n00123,no,"NA"\n0007,,"{text}"\n2024-01-02,en,12\n', encoding="utf-8"
    )
    assert read_table(tmp_path / "a.csv").to_pylist() == [
        {"id": "00123", "lang": "no", "text": "NA"},
        {"id": "0007", "lang": None, "text": text},
        {"id": "2024-01-02", "lang": "en", "text": "12"},
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_json_lines_keep_what_looks_like_a_time_and_rows_of_megabytes(tmp_path, suffix):
    rows = [
        {
            "id": "2024-01-01T00:00:00+02:00",
            "text": "2024-01-01",
            "meta": {"seen": "2024-01-02"},
            "days": ["2024-01-03"],
        },
        {"id": "x", "text": "水" * 1_000_000, "meta": {"seen": None}, "days": [], "n": 1},
    ]
    (tmp_path / f"a{suffix}").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8"
    )
    assert read_table(tmp_path / f"a{suffix}").to_pylist() == [{**rows[0], "n": None}, rows[1]]


@pytest.mark.spark
def test_csv_of_another_system_is_read_as_spark_reads_it(spark, tmp_path):
    """Lines that end in CR LF, as a spreadsheet writes them; and a cell of nothing between quotes."""
    from quality_judge.spark import read_corpus

    rows = ["id,text", '1,"line one\r\nline two, of it"', '2,""', "3,"]
    for name, ending in (("windows", "\r\n"), ("unix", "\n")):
        path = tmp_path / f"{name}.csv"
        path.write_bytes(ending.join([*rows, ""]).encode())
        expected = [row.asDict() for row in read_corpus(spark, str(path), format="csv").collect()]
        assert read_table(path).to_pylist() == expected
        assert expected[1:] == [{"id": "2", "text": None}, {"id": "3", "text": None}]
