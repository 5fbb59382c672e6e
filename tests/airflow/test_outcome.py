"""What a programme's last line and exit code mean for its task; needs no Airflow."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality_judge.airflow.outcome import Outcome, last_summary, numbers_of, summary_in

REFUSED = {"ok": False, "error": "CorpusError", "message": "out holds no parquet table"}


@pytest.mark.parametrize(
    ("exit_code", "summary", "done", "final"),
    [
        (0, {"ok": True}, True, False),
        (0, None, False, False),
        (1, {"ok": False, "message": "2 of 7 do not hold"}, False, True),
        (1, None, False, False),
        (1, {"ok": True}, False, False),
        (1, {"ok": False, "error": "RunConflict", "retry": True}, False, False),
        (2, {"ok": False, "error": "MemoryError", "retry": True}, False, False),
        (2, {**REFUSED, "retry": False}, False, True),
        (2, REFUSED, False, True),
        (143, {"ok": False, "error": "Interrupted", "retry": True}, False, False),
        (137, REFUSED, False, False),
        (-15, REFUSED, False, False),
        (2, None, False, True),
        (137, None, False, False),
        (-9, None, False, False),
    ],
)
def test_only_a_programme_that_said_no_or_got_bad_arguments_is_not_retried(exit_code, summary, done, final):
    outcome = Outcome("validate_corpus.py", exit_code, summary)
    assert (outcome.done, outcome.final) == (done, final)


def test_a_failed_check_bad_input_and_a_crash_read_differently():
    failed = str(Outcome("validate_corpus.py", 1, {"ok": False, "message": "2 of 7 do not hold"}))
    refused = str(Outcome("score_corpus.py", 2, REFUSED))
    crashed = str(Outcome("score_corpus.py", 137, None))
    ended = str(Outcome("score_corpus.py", 1, {"ok": False, "message": "a run is writing", "retry": True}))
    assert failed == "validate_corpus.py: the check did not hold (exit 1): 2 of 7 do not hold"
    assert refused == "score_corpus.py: bad input or arguments (exit 2): out holds no parquet table"
    assert crashed == "score_corpus.py ended before its work did (exit 137): see the task log"
    assert ended == "score_corpus.py ended before its work did (exit 1): a run is writing"


def test_the_last_summary_is_found_between_log_lines():
    lines = [
        '{"ok": true, "rows": 1}',
        "26/01/01 WARN x",
        '  {"ok": true, "rows": 2}\n',
        '{"event": "a log line"}',
        "{",
        "",
    ]
    assert last_summary(lines) == {"ok": True, "rows": 2}
    assert last_summary(["nothing", "[1]", '{"ok": "yes"}']) is None


@given(st.text())
def test_no_line_of_output_breaks_the_reader(line):
    found = summary_in(line)
    assert found is None or isinstance(found["ok"], bool)


def test_deep_nesting_is_no_summary_rather_than_an_error():
    assert summary_in('{"a":' * 200_000) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(min_size=1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from("abcd"), json_values))
def test_an_xcom_holds_numbers_and_no_strings(summary):
    def values(item):
        if isinstance(item, dict):
            return [leaf for value in item.values() for leaf in values(value)]
        return [leaf for value in item for leaf in values(value)] if isinstance(item, list) else [item]

    assert all(isinstance(leaf, (bool, int, float)) for leaf in values(numbers_of(summary)))


def test_an_xcom_keeps_every_number_of_a_summary():
    summary = {
        "ok": True,
        "rows": 204,
        "codes": {"OK": 201, "note": "x"},
        "roc_auc_ci": [0.8, 0.9],
        "judge": "a/b",
        "none": None,
    }
    kept = numbers_of(summary)
    assert kept == {"ok": True, "rows": 204, "codes": {"OK": 201}, "roc_auc_ci": [0.8, 0.9]}
    json.dumps(kept, allow_nan=False)
