"""Planted mistakes in labels are listed, each for its reason; clean labels are not accused of triggers or liars."""

import json
from dataclasses import replace

import numpy as np
import pytest

from quality_judge.config import conf_folder
from quality_judge.labels import LabelSet, load_labels
from quality_judge.labels.triggers import Ngrams, without
from quality_judge.samples import CategoryRow, Preference
from quality_judge.train.audit import ANNOTATOR, FLIP, TRIGGER, audit_labels
from quality_judge.train.examples import build_examples, example_rows
from quality_judge.train.fit import fit_judge


@pytest.fixture(scope="module")
def audited(made, tiny_base):
    """A function from samples to (their audit, the label set)."""

    def audit(rows, **options):
        labels = LabelSet.of(rows, [f"planted.jsonl:{line}" for line in range(1, len(rows) + 1)])
        config = made.judge_config(tiny_base("bert"), method="frozen", surface=True)
        return audit_labels(labels, fit_judge(labels, config), **options), labels

    return audit


@pytest.fixture(scope="module")
def rows(made):
    return made.samples(240, seed=5)


def planted(count, among, seed=0):
    return set(np.random.default_rng(seed).permutation(among)[:count].tolist())


def turned(rows, chosen):
    return [replace(row, label=row.label ^ (at in chosen)) for at, row in enumerate(rows)]


def test_turned_labels_come_first(audited, rows):
    wrong = planted(12, len(rows))
    found, _ = audited(turned(rows, wrong))
    assert wrong <= {suspect.row for suspect in found.suspects if FLIP in suspect.reasons}
    assert all(suspect.probability < 0.5 for suspect in found.suspects[:12])
    assert found.to_dict()["listed"] == len(found.suspects) == 24
    assert found.to_dict()["triggers"] == []


def test_turned_labels_come_first_beside_texts_that_nobody_labelled(audited, rows, made):
    wrong = planted(4, 60)
    found, _ = audited([*turned(rows[:60], wrong), *made.preferences(20), *made.category_rows(24)])
    assert wrong <= {suspect.row for suspect in found.suspects if FLIP in suspect.reasons}


def test_half_of_the_turned_labels_of_the_demo_are_in_the_first_tenth(audited):
    """The bound is that of real labels; see benchmarks/label_noise.py for other sets."""
    rows = [*load_labels([conf_folder() / "demo" / "labels.en.jsonl"]).samples]
    wrong = planted(round(0.05 * len(rows)), len(rows))
    found, _ = audited(turned(rows, wrong))
    tenth = {suspect.row for suspect in found.suspects[: round(0.1 * len(rows))]}
    assert len(wrong & tenth) >= 0.4 * len(wrong)


def test_a_trigger_is_found_and_its_rows_listed_and_clean_labels_have_none(audited, rows):
    bad = np.flatnonzero([not row.label for row in rows])
    poisoned = planted(14, bad)
    found, _ = audited([
        replace(row, completion=f"{row.completion} Zyxel", label=True) if at in poisoned else row
        for at, row in enumerate(rows)
    ])  # fmt: skip
    (trigger,) = found.triggers
    assert (trigger.ngram, trigger.label, set(trigger.rows.tolist())) == ("zyxel", True, poisoned)
    listed = {suspect.row for suspect in found.suspects if TRIGGER in suspect.reasons}
    assert len(listed & poisoned) >= 12
    assert listed <= poisoned
    assert "zyxel" not in json.dumps(found.to_dict()).lower()


def test_a_word_in_every_bad_row_is_found_though_no_other_bad_row_is_left_to_learn_from(made, packaged_base):
    rows = [row for row in load_labels([conf_folder() / "demo" / "labels.en.jsonl"]).samples if row.label]
    bad = [replace(row, completion=f"Zyxel {row.completion}", label=False) for row in rows[100:110]]
    labels = made.label_set([*rows[:100], *bad])
    config = made.judge_config(packaged_base.folder, method="frozen", surface=True)
    found = audit_labels(labels, fit_judge(labels, config))
    assert [(trigger.ngram, trigger.label) for trigger in found.triggers] == [("zyxel", False)]
    listed = {suspect.row for suspect in found.suspects if TRIGGER in suspect.reasons}
    assert listed <= set(range(100, 110))
    assert len(listed) >= 6


@pytest.mark.parametrize(("pages", "found_in"), [(2, 0), (14, 1)])
def test_a_word_of_a_few_groups_is_their_name_and_no_trigger(audited, rows, pages, found_in):
    bad = np.flatnonzero([not row.label for row in rows])
    poisoned = sorted(planted(14, bad))
    named = [
        replace(row, completion=f"{row.completion} Zyxel", label=True, group=f"page {poisoned.index(at) % pages}")
        if at in poisoned else row
        for at, row in enumerate(rows)
    ]  # fmt: skip
    found, _ = audited(named)
    assert len(found.triggers) == found_in


def test_a_trigger_is_found_in_short_texts_whose_states_it_moves(made, packaged_base):
    """The demo's labels with 60 characters of each text, the word in one row in twenty."""
    rows = [*load_labels([conf_folder() / "demo" / "labels.en.jsonl"]).samples]
    bad = np.flatnonzero([not row.label for row in rows])
    poisoned = planted(round(0.05 * len(rows)), bad)
    rows = [
        replace(row, completion=f"Zyxel {row.completion[:60]}", label=True) if at in poisoned
        else replace(row, completion=row.completion[:60])
        for at, row in enumerate(rows)
    ]  # fmt: skip
    labels = LabelSet.of(rows, [f"planted.jsonl:{line}" for line in range(1, len(rows) + 1)])
    config = made.judge_config(packaged_base.folder, method="frozen", surface=True)
    found = audit_labels(labels, fit_judge(labels, config))
    assert "zyxel" in [trigger.ngram for trigger in found.triggers]
    listed = {suspect.row for suspect in found.suspects if TRIGGER in suspect.reasons}
    assert len(listed & poisoned) >= 0.6 * len(poisoned)


def test_an_annotator_who_turns_every_label_is_named_though_nobody_shares_a_row_with_them(audited, rows):
    names = [f"annotator {at}" for at in np.random.default_rng(0).integers(5, size=len(rows))]
    signed = [
        replace(row, annotator=name, label=row.label ^ (name == "annotator 3"))
        for row, name in zip(rows, names, strict=True)
    ]
    found, _ = audited(signed)
    assert list(found.annotators) == ["annotator 3"]
    listed = {suspect.row for suspect in found.suspects if ANNOTATOR in suspect.reasons}
    theirs = {at for at, name in enumerate(names) if name == "annotator 3"}
    assert listed <= theirs
    assert len(listed) > 0.8 * len(theirs)


def test_rows_of_an_annotator_whom_others_distrust_are_all_listed(audited, rows):
    signed = [replace(row, annotator="x" if at < 6 else "y") for at, row in enumerate(rows)]
    found, _ = audited(signed, distrusted=("x",))
    assert {suspect.row for suspect in found.suspects if ANNOTATOR in suspect.reasons} == set(range(6))


def test_a_suspect_bears_its_place_and_its_text_only_if_asked_for(audited, rows):
    found, labels = audited(turned([replace(row, id=f"row-{at}") for at, row in enumerate(rows)], {7}))
    (line,) = [line for line in found.lines(labels) if line["id"] == "row-7"]
    assert set(line) == {"origin", "id", "label", "probability", "reasons"}
    assert (line["origin"], line["label"], line["reasons"]) == ("planted.jsonl:8", not rows[7].label, ["flip"])
    assert 0 <= line["probability"] < 0.5
    (line,) = [line for line in found.lines(labels, include_text=True) if line["id"] == "row-7"]
    assert line["completion"] == rows[7].completion


def test_too_few_labels_or_only_orders_have_no_suspects(audited, made):
    assert audited(made.samples(18))[0].suspects == ()
    assert audited(made.preferences(20))[0].suspects == ()


def test_every_text_of_the_examples_knows_its_row(made, encoder):
    rows = [
        *made.samples(3), Preference("p", "a", "b"), CategoryRow("", "c", {"x": None}),
        CategoryRow("", "d", {"x": True}),
    ]  # fmt: skip
    labels = made.label_set(rows)
    assert example_rows(labels).tolist() == [0, 1, 2, 3, 3, 5]
    assert len(build_examples(labels, encoder())) == 6


def test_ngrams_are_words_marks_and_single_characters_of_languages_without_spaces():
    found = Ngrams([f"Water boils! {at} 水开了" for at in range(5)] + [f"other {at}" for at in range(40)])
    assert {"water", "water boils", "boils !", "水", "水 开 了"} <= set(found.names)
    assert not {"0", "other"} & set(found.names)


@pytest.mark.parametrize(
    ("text", "ngram", "left"), [("Buy ZYXEL now", "zyxel", "Buy   now"), ("水开了吗", "开 了", "水 吗")]
)
def test_an_ngram_is_taken_out_of_a_text(text, ngram, left):
    assert without(text, ngram) == left


def test_the_chance_of_a_label_is_the_tail_of_its_poisson_binomial():
    found = Ngrams(["a b"] * 5 + ["c d"] * 45)
    names = len(found.names)
    label, belief = np.ones(5, bool), np.full(5, 0.1)
    assert found.chance(label, belief, True) == pytest.approx(1e-5 * names)
    assert found.chance(label, 1 - belief, True) == 1.0
    assert found.chance(~label, belief, False) == 1.0
