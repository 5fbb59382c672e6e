"""Properties that hold for any input, 200 tries each: files, configurations, frames, splits, plans and messages.

Those of single modules stand in the tests beside them; here are the ones an attacker would try first.
"""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from quality_judge.attacks import dressed, mentioning, shipped_attacks, views
from quality_judge.config import JudgeConfig, override, parse, read_yaml
from quality_judge.engine.batching import plan_batches
from quality_judge.engine.golden import golden_rows
from quality_judge.engine.texts import read_texts, spells
from quality_judge.errors import InputError, JudgeError, QualityJudgeError, gathered, listed, unknown
from quality_judge.judge import checksum_of, fingerprint, load_judge, save_judge, spelled
from quality_judge.labels import LabelSet, clean_labels, load_labels, split_labels
from quality_judge.labels.split import fold_indices, group_names
from quality_judge.policy import Policy
from quality_judge.redact import redacted
from quality_judge.rubric import Rubric
from quality_judge.samples import Sample
from quality_judge.stats.calibration import Calibration
from quality_judge.stats.thresholds import certify
from quality_judge.untrusted import bounded_json, json_object, tensor_shapes

TRIES = settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
)
TEXT = st.text(max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12,
)  # fmt: skip
SECRET_TEXT = "zephyr quillfin of row text"


@TRIES
@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5))
def test_what_is_spelled_reads_back_the_same_and_has_one_spelling(content):
    text = spelled(content)
    assert json_object(text, what="x") == content if _flat(content) else True
    assert spelled(json.loads(text)) == text
    assert checksum_of(json.loads(text)) == checksum_of(content)


def tried(function):
    """(what it gives, None), or (None, the error of ours); any other exception is a fault."""
    try:
        return function(), None
    except QualityJudgeError as error:
        return None, error


def _flat(content):
    from quality_judge.config import MAX_DEPTH, depth

    return depth(content) <= MAX_DEPTH


@TRIES
@given(st.binary(max_size=200))
def test_any_bytes_are_a_json_object_or_an_input_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    found, error = tried(lambda: bounded_json(path))
    assert isinstance(found, dict) if error is None else path.name in str(error)


@TRIES
@given(st.binary(max_size=200))
def test_any_bytes_are_tensors_or_an_input_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    found, error = tried(lambda: tensor_shapes(path))
    assert isinstance(found, dict) if error is None else path.name in str(error)


SHAPES = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8).filter(
        lambda name: name != "__metadata__"
    ),
    st.lists(st.integers(0, 4), max_size=3).map(tuple), max_size=4,
)  # fmt: skip


@TRIES
@given(SHAPES, st.sampled_from([np.float32, np.float16, np.int64, np.bool_]))
def test_a_headers_shapes_are_those_that_were_saved(tmp_path_factory, shapes, dtype):
    path = tmp_path_factory.getbasetemp() / "saved.safetensors"
    path.write_bytes(save({name: np.zeros(shape, dtype) for name, shape in shapes.items()}))
    assert tensor_shapes(path) == shapes


@TRIES
@given(data=st.data())
def test_no_byte_of_a_judge_can_be_changed_unseen(tmp_path_factory, make_spec, judge_files, data):
    folder = tmp_path_factory.getbasetemp() / "a-judge"
    if not folder.exists():
        save_judge(folder, make_spec(), judge_files)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content)))
    changed = content[:at] + data.draw(st.binary(min_size=0, max_size=3)) + content[at + data.draw(st.integers(0, 3)) :]
    path.write_bytes(changed)
    try:
        if changed == content:
            load_judge(folder)
        else:
            with pytest.raises(QualityJudgeError):
                load_judge(folder)
    finally:
        path.write_bytes(content)


@TRIES
@given(JSON)
def test_any_setting_makes_a_configuration_or_a_config_error(value):
    data = override({"name": "a", "base": "b"}, [f"max_tokens={json.dumps(value)}"])
    found, error = tried(lambda: parse(JudgeConfig, data, where="x"))
    assert 8 <= found.max_tokens <= 131072 if error is None else "max_tokens" in str(error)


@TRIES
@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_any_text_is_a_yaml_mapping_or_a_config_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode())
    found, error = tried(lambda: read_yaml(path))
    assert all(isinstance(key, str) for key in found) if error is None else "any.yaml" in str(error)


@TRIES
@given(st.dictionaries(st.sampled_from(["name", "keep_at", "drop_below", "on_flags", "slices", "keep_best"]), JSON))
def test_any_mapping_is_a_policy_whose_bands_are_in_order_or_a_config_error(data):
    try:
        resolved = parse(Policy, data, where="x").resolve(0.5)
    except QualityJudgeError:
        return
    assert all(0 <= low <= high <= 1 for _, high, low in resolved.bands())


ROWS = st.lists(st.tuples(TEXT.filter(str.strip), st.booleans()), min_size=2, max_size=20)


@TRIES
@given(st.lists(JSON, max_size=6))
def test_any_json_lines_are_labels_or_an_error_without_a_word_of_them(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    kept = [{"text": SECRET_TEXT, "label": row, "weight": row} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *kept, {SECRET_TEXT: SECRET_TEXT}]))
    _, error = tried(lambda: load_labels([path]))
    assert error is not None
    assert SECRET_TEXT not in str(error)


@TRIES
@given(ROWS)
def test_cleaning_twice_is_cleaning_once_and_adds_no_row(rows):
    labels = LabelSet.of([Sample("", text, label) for text, label in rows], [f"f:{i}" for i in range(len(rows))])
    once, _ = clean_labels(labels)
    twice, _ = clean_labels(once)
    assert twice == once
    assert set(once.samples) <= set(labels.samples)


@TRIES
@given(ROWS, st.integers(0, 5))
def test_a_split_loses_no_row_doubles_none_and_cuts_no_group(rows, seed):
    labels = LabelSet.of([Sample("", text, label) for text, label in rows], [f"f:{i}" for i in range(len(rows))])
    try:
        parts = split_labels(labels, [0.5, 0.5], seed=seed)
    except QualityJudgeError:
        return
    assert sorted(origin for part in parts for origin in part.origins()) == sorted(labels.origins())
    where = {origin: number for number, part in enumerate(parts) for origin in part.origins()}
    groups = {}
    for name, origin in zip(group_names(labels), labels.origins(), strict=True):
        assert groups.setdefault(name, where[origin]) == where[origin]


@TRIES
@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.integers(2, 5), st.integers(0, 9))
def test_a_fold_holds_whole_groups_and_every_row_has_one(groups, count, seed):
    names = [str(group) for group in groups]
    count = min(count, len(set(names)))
    if count < 2:
        return
    folds = fold_indices(names, [0] * len(names), count, seed)
    assert len(folds) == len(names)
    assert all(len(set(folds[np.array(names) == name])) == 1 for name in names)
    assert set(folds.tolist()) == set(range(count))


@TRIES
@given(st.lists(st.integers(1, 64), max_size=80), st.permutations(range(80)))
def test_a_rows_batch_shape_depends_on_its_length_alone(lengths, order):
    buckets, lengths = [(16, 4), (32, 2), (64, 1)], np.array(lengths, np.int64)
    order = np.array([i for i in order if i < len(lengths)], int)

    def shapes(values):
        found = {}
        for batch in plan_batches(values, buckets):
            found |= {int(row): (batch.length, batch.capacity) for row in batch.rows}
        return found

    plain, shuffled = shapes(lengths), shapes(lengths[order])
    assert {int(order[row]): shape for row, shape in shuffled.items()} == plain


@TRIES
@given(st.lists(st.none() | st.text(max_size=20) | st.binary(max_size=20), max_size=20), st.integers(1, 19))
def test_reading_a_column_in_parts_is_reading_it_whole(column, at):
    def read(part):
        found = read_texts(part, head_bytes=16, tail_bytes=16)
        return list(zip(found.strings.to_pylist(), found.code.tolist(), found.truncated.tolist(), strict=True))

    assert read(column[:at]) + read(column[at:]) == read(column)


@TRIES
@given(st.lists(TEXT, max_size=8), st.lists(st.text(min_size=1, max_size=5), max_size=4))
def test_a_row_is_marked_exactly_when_it_spells_a_token(texts, tokens):
    found = spells(pa.array(texts, pa.large_string()), tokens).tolist()
    assert found == [any(token in text for token in tokens) for text in texts]


@TRIES
@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.01, 50), st.floats(-9, 9))
def test_a_calibration_never_falls_and_stays_within_its_bounds(one, two, slope, bias):
    low, high = Calibration.from_dict(
        {"method": "platt", "slope": slope, "bias": bias, "center": 0.0, "scale": 1.0}
    ).apply([min(one, two), max(one, two)])
    assert 0 < low <= high < 1


@TRIES
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=4, max_size=60))
def test_a_granted_certificate_is_never_better_than_what_was_seen(rows):
    probability, good = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if good.all() or not good.any():
        return
    promise = certify(probability, good, target=0.8, confidence=0.9)
    if promise.granted:
        assert good[probability >= promise.threshold].mean() >= 0.8


@TRIES
@given(TEXT, st.integers(0, 50))
def test_an_attack_keeps_the_row_it_is_put_around(text, turn):
    for family in shipped_attacks().families.values():
        assert text in dressed(text, family, turn)
    assert text in mentioning(text, turn, trigger=True)
    assert set(views(text)) == set(views(""))


@TRIES
@given(st.lists(TEXT, max_size=30), TEXT)
def test_a_message_shows_names_and_never_sentences(names, got):
    shown = listed([*names, SECRET_TEXT])
    assert SECRET_TEXT not in shown
    assert "\n" not in shown
    assert len(unknown("thing", got, ["a"])) > 10
    assert gathered("two faults", names).count("\n") <= 21 + sum(name.count("\n") for name in names)


@TRIES
@given(TEXT)
def test_redacting_twice_is_redacting_once(text):
    assert redacted(redacted(text)) == redacted(text)


@TRIES
@given(st.sampled_from(["FAILED_READ_FILE", "CAST_INVALID_INPUT", "x"]), st.text(max_size=40))
def test_no_failure_of_spark_is_told_in_the_words_of_a_row(condition, text):
    pytest.importorskip("pyspark", reason="pip install 'quality-judge[spark]'")
    from pyspark.errors import PySparkException

    from quality_judge.spark.fault import explained

    said = f"[{condition}] value '{SECRET_TEXT} {text}' of row cannot be cast at file:/data/part-0.parquet"
    assert SECRET_TEXT not in str(explained(PySparkException(said), "the input"))


@TRIES
@given(st.dictionaries(st.sampled_from(["stack", "labels", "thresholds", "certificate"]), JSON, max_size=2))
def test_the_fingerprint_follows_what_scores_and_nothing_else(make_spec, changes):
    spec = make_spec()
    silent = {key: value for key, value in changes.items() if key in ("labels", "certificate")}
    assert fingerprint(spec.model_copy(update=silent)) == fingerprint(spec)
    moved = spec.stack.model_copy(update={"bias": spec.stack.bias + 1})
    assert fingerprint(spec.model_copy(update={"stack": moved})) != fingerprint(spec)


@TRIES
@given(st.dictionaries(st.sampled_from(["name", "criteria", "good", "bad", "categories"]), JSON))
def test_any_mapping_is_a_rubric_or_a_config_error(data):
    found, error = tried(lambda: parse(Rubric, data, where="x"))
    assert len(found.sha256) == 64 if error is None else str(error).startswith("x: ")


@TRIES
@given(st.dictionaries(st.sampled_from(["method", "slope", "bias", "center", "scale", "knots_raw"]), JSON))
def test_any_mapping_is_a_calibration_or_an_input_error(data):
    try:
        assert 0 < Calibration.from_dict(data).apply(0.0) < 1
    except InputError:
        return


@TRIES
@given(st.dictionaries(st.sampled_from(["texts", "raw"]), JSON | st.dictionaries(st.just("float32"), JSON)))
def test_any_mapping_is_golden_rows_or_a_judge_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "golden.json"
    path.write_text(json.dumps(data))
    try:
        texts, saved = golden_rows(SimpleNamespace(path=lambda _: path))
    except JudgeError:
        return
    assert all(isinstance(text, str) for text in texts)
    assert isinstance(saved, dict)


@TRIES
@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), st.booleans()), min_size=1))
def test_labels_are_the_same_from_any_kind_of_file(tmp_path_factory, rows):
    place = tmp_path_factory.getbasetemp()
    rows = [{"text": f"word {text}", "label": label} for text, label in rows]
    (place / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "l.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), place / "l.parquet")
    hashes = {load_labels([place / f"l.{kind}"]).sha256 for kind in ("jsonl", "json", "parquet")}
    assert len(hashes) == 1
