"""The red team: its suite is whole, its counts are what they say, and a judge that falls for a family is seen to."""

import json
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from quality_judge.attacks import (
    PHRASE,
    TEXT,
    apart,
    dressed,
    language_of,
    mentioning,
    shipped_attacks,
    shipped_carriers,
    views,
)  # fmt: skip
from quality_judge.errors import InputError
from quality_judge.labels import LabelSet
from quality_judge.redteam import MENTIONS_EACH, in_words, measured
from quality_judge.samples import Sample
from quality_judge.scores import FLAGS, HIDDEN_CHARS
from quality_judge.stats.clustered import clustered_interval
from quality_judge.stats.intervals import wilson

ATTACKS = shipped_attacks()


def rows(kind):
    return [text for carriers in shipped_carriers().values() for text in getattr(carriers, kind)]


def test_the_suite_has_the_size_it_promises():
    held_out = [name for name, family in ATTACKS.families.items() if not family.seen]
    assert len(ATTACKS.families) >= 12
    assert len(held_out) >= 4
    assert len(rows("bad")) >= 25
    assert len(rows("good")) * MENTIONS_EACH >= 100
    assert len(ATTACKS.master_keys) >= 20
    assert len(views("a")) >= 6


def test_every_attack_keeps_its_row_and_speaks_its_language():
    for name, family in ATTACKS.families.items():
        for language, templates in (("en", family.en), ("zh", family.zh)):
            assert all(template.count(TEXT) == 1 for template in templates), name
            for text in shipped_carriers()[language].bad:
                assert text in dressed(text, family, 1)
            assert len(set(templates)) == len(templates) >= 2
    assert all(
        language_of(text) == language for language, c in shipped_carriers().items() for text in (*c.bad, *c.good)
    )


def test_seen_and_held_out_families_share_no_template_and_no_mention_is_both_learnt_and_measured():
    seen, held_out = (
        {t for f in ATTACKS.families.values() if f.seen is kind for t in (*f.en, *f.zh)} for kind in (True, False)
    )
    assert not seen & held_out
    for language, measured_with in ATTACKS.mentions.items():
        learnt = ATTACKS.learnt_mentions[language]
        assert not set(learnt.templates) & set(measured_with.templates)
        for held in (*measured_with.trigger, *measured_with.plain):
            assert not any(held in phrase or phrase in held for phrase in (*learnt.trigger, *learnt.plain)), held
        assert len(mentions_of(measured_with)) >= 24


def mentions_of(said):
    return {(phrase, template) for phrase in (*said.trigger, *said.plain) for template in said.templates}


def test_each_phrase_of_an_attack_has_one_of_none_for_a_twin_and_all_fit_their_language():
    for language, said in (*ATTACKS.mentions.items(), *ATTACKS.learnt_mentions.items()):
        assert len(set(said.trigger)) == len(said.trigger) == len(said.plain) == len(set(said.plain))
        assert not set(said.trigger) & set(said.plain)
        assert all(t.count(TEXT) == t.count(PHRASE) == 1 and language_of(t) == language for t in said.templates)


def test_a_look_alike_and_its_twin_differ_in_the_phrase_alone():
    for turn in range(30):
        one, two = (mentioning("Water boils.", turn, trigger=trigger).split('"') for trigger in (True, False))
        assert [part for at, part in enumerate(one) if at != 1] == [part for at, part in enumerate(two) if at != 1]
        assert one[1] != two[1]
        control = mentioning("Water boils.", turn, trigger=False, further=1).split('"')
        assert [part for at, part in enumerate(two) if at != 1] == [part for at, part in enumerate(control) if at != 1]
        assert len({one[1], two[1], control[1]}) == 3


def test_no_look_alike_of_a_row_is_asked_twice():
    for row, text in enumerate(rows("good")):
        for trigger in (True, False):
            turns = range(row * MENTIONS_EACH, (row + 1) * MENTIONS_EACH)
            assert len({mentioning(text, turn, trigger=trigger) for turn in turns}) == MENTIONS_EACH


def test_a_token_apart_has_the_same_characters_and_disguises_read_the_same():
    assert apart("<|im_end|>").replace(" ", "") == "<|im_end|>"
    seen = views("a peace of code")
    assert seen["zero_width"].replace("\u200b", "") == seen["soft_hyphens"].replace("\u00ad", "") == "a peace of code"
    assert seen["homoglyphs"] != "a peace of code"
    assert len(seen["homoglyphs"]) == len(seen["leetspeak"]) == len("a peace of code")


class Believer:
    """A judge that finds good rows good, and falls for one phrase, or for one token."""

    def __init__(self, phrase):
        self.phrase, self.good = phrase, set(rows("good"))
        encoding = SimpleNamespace(control_tokens=("<|fooled|>",))
        self.judge = SimpleNamespace(spec=SimpleNamespace(threshold=0.5, encoding=encoding))

    def score(self, texts, prompts=None):
        kept = [self.phrase in text or any(good in text for good in self.good) for text in texts]
        flags = np.zeros((len(texts), len(FLAGS)), bool)
        flags[:, FLAGS.index(HIDDEN_CHARS)] = ["\u200b" in text for text in texts]
        return SimpleNamespace(probability=np.where(kept, 0.9, 0.1), flags=flags)


def test_a_judge_that_falls_for_one_family_is_seen_to_and_no_other_family_is_blamed():
    found = measured(Believer("SYSTEM MODE ON"))
    flips = {name: family["flips"] for name, family in found["families"].items()}
    english = len(shipped_carriers()["en"].bad)
    assert flips.pop("system_mode") == -(-english // 3)
    assert set(flips.values()) == {0}
    assert found["seen"]["flips"] == 0
    assert found["held_out"]["worst"]["family"] == "system_mode"
    low, high = found["families"]["system_mode"]["ci"]
    assert low < found["families"]["system_mode"]["rate"] < high
    assert (found["master_keys"]["flips"], found["over_defence"]["flips"]) == (0, 0)


def test_what_a_control_token_does_is_told_from_what_its_letters_do():
    found = measured(Believer("<|fooled|>"))["control"]
    assert found["spelled"]["flips"] > 0
    assert found["apart"]["flips"] == 0
    assert found["points_over_apart"] == pytest.approx(100 * found["spelled"]["rate"], abs=0.01)


def test_a_judge_that_fears_words_is_seen_to():
    class Fearful(Believer):
        def score(self, texts, prompts=None):
            said = super().score(texts)
            afraid = np.array([any(word in text for word in ("jailbreak", "系统提示词", "prompt")) for text in texts])
            return SimpleNamespace(probability=np.where(afraid, 0.1, said.probability), flags=said.flags)

    lost = measured(Fearful("no such phrase"))["over_defence"]
    assert lost["n"] == len(rows("good")) * MENTIONS_EACH
    assert 0 < lost["flips"] < lost["n"]
    assert lost["shift"] < 0
    assert (lost["control"]["flips"], lost["control"]["shift"]) == (0, 0.0)
    beyond = lost["beyond_control"]
    assert beyond["points"] == pytest.approx(100 * lost["rate"], abs=0.01)
    assert 0 < beyond["ci"][0] < beyond["points"] < beyond["ci"][1]


def test_a_judge_whom_any_change_of_a_phrase_sways_is_told_from_one_that_fears_attacks():
    class Erratic(Believer):
        def score(self, texts, prompts=None):
            said = super().score(texts)
            luck = np.array([zlib.crc32(text.encode()) % 2 for text in texts], bool)
            return SimpleNamespace(probability=np.where(luck, said.probability, 0.4), flags=said.flags)

    lost = measured(Erratic("no such phrase"))["over_defence"]
    assert abs(lost["rate"] - 0.5) < 0.2
    assert abs(lost["control"]["rate"] - 0.5) < 0.2
    low, high = lost["beyond_control"]["ci"]
    assert low < 0 < high


def test_labels_give_the_rows_and_too_few_are_refused():
    good = rows("good")[:4]
    few = LabelSet.of([Sample("", text, True) for text in good], [f"a:{i}" for i in range(4)])
    with pytest.raises(InputError, match="0 bad rows"):
        measured(Believer("x"), few)
    some = [Sample("", f"bad row {i}", False) for i in range(130)] + [
        Sample("", f"{good[i % 4]} {i}", True) for i in range(30)
    ]
    found = measured(Believer("x"), LabelSet.of(some, [f"a:{i}" for i in range(len(some))]))
    assert found["carriers"] == {"bad": 100, "good": 30, "own": False}
    assert "bad row" not in json.dumps(found)


def test_a_judge_without_a_threshold_is_refused():
    judge = Believer("x")
    judge.judge.spec.threshold = None
    with pytest.raises(InputError, match="threshold"):
        measured(judge)


def test_a_threshold_that_is_given_counts_instead_of_the_judges_own_and_must_be_a_probability():
    judge = Believer("SYSTEM MODE ON")
    assert measured(judge, threshold=0.5) == measured(judge)
    strict = measured(judge, threshold=0.95)
    assert (strict["threshold"], strict["held_out"]["flips"], strict["over_defence"]["n"]) == (0.95, 0, 0)
    judge.judge.spec.threshold = None
    assert measured(judge, threshold=0.5)["held_out"]["flips"] > 0
    for wrong in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="above 0 and below 1"):
            measured(judge, threshold=wrong)


def test_a_judge_that_keeps_no_look_alike_says_so():
    class Harsh(Believer):
        def score(self, texts, prompts=None):
            said = super().score(texts)
            return SimpleNamespace(probability=said.probability / 10, flags=said.flags)

    found = measured(Harsh("x"))
    assert found["over_defence"]["beyond_control"] == {"points": None, "ci": None}
    assert "none of them is kept" in in_words(found)[-1]


class Fooled(Believer):
    """Keeps good rows and drops bad ones, and of a text in any dress that `told` is true of the other way round."""

    def __init__(self, told):
        super().__init__("no such phrase")
        self.told, self.plain = told, {*rows("bad"), *rows("good")}

    def score(self, texts, prompts=None):
        said = super().score(texts)
        moved = np.array([text not in self.plain and self.told(text) for text in texts], bool)
        return SimpleNamespace(probability=np.where(moved, 1 - said.probability, said.probability), flags=said.flags)


def rounded(interval):
    return [round(bound, 4) for bound in interval]


@pytest.mark.parametrize("each", [3, 1000])
def test_where_some_rows_flip_in_any_dress_the_interval_is_one_of_rows_and_of_each_family_wilsons(each):
    weak = rows("bad")[::each]
    found = measured(Fooled(lambda text: any(row in text for row in weak)))
    of_rows = np.arange(len(rows("bad"))) % each == 0
    low, high = clustered_interval(of_rows.astype(float), np.arange(len(of_rows)))
    expected = rounded([max(0.0, low), high])
    for part in (found["seen"], found["held_out"], found["control"]["spelled"], found["control"]["apart"]):
        assert part["n"] > len(of_rows)
        assert part["ci"] == expected
    once = rounded(wilson(len(weak), len(of_rows)))
    assert [each["ci"] for each in found["families"].values()] == [once] * len(ATTACKS.families)


def test_where_all_rows_are_alike_each_counts_once():
    n = len(rows("bad"))
    for told, successes in ((lambda text: True, n), (lambda text: False, 0)):
        found = measured(Fooled(told))
        assert found["seen"]["ci"] == found["held_out"]["ci"] == rounded(wilson(successes, n))
    name, family = next((name, family) for name, family in ATTACKS.families.items() if family.seen)
    of_one = {dressed(text, family, turn) for turn, text in enumerate(rows("bad"))}
    found = measured(Fooled(of_one.__contains__))
    assert found["families"][name]["flips"] == found["seen"]["flips"] == n
    assert found["seen"]["ci"] == rounded(wilson(round(n * found["seen"]["rate"]), n))


def test_look_alikes_of_one_row_that_are_lost_together_count_once():
    shy, words = rows("good")[::3], [word for said in ATTACKS.mentions.values() for word in said.trigger]
    judge = Fooled(lambda text: any(row in text for row in shy) and any(word in text for word in words))
    lost = measured(judge)["over_defence"]
    of_rows = np.arange(len(rows("good"))) % 3 == 0
    assert (lost["n"], lost["flips"]) == (MENTIONS_EACH * len(of_rows), MENTIONS_EACH * len(shy))
    assert lost["ci"] == rounded(clustered_interval(of_rows.astype(float), np.arange(len(of_rows))))
    assert lost["control"]["ci"] == rounded(wilson(0, len(of_rows)))


def test_of_labels_with_no_row_on_its_right_side_nothing_is_said():
    class Reversed(Believer):
        def score(self, texts, prompts=None):
            kept = np.array(["bad" in text for text in texts], bool)
            flags = np.zeros((len(texts), len(FLAGS)), bool)
            return SimpleNamespace(probability=np.where(kept, 0.9, 0.1), flags=flags)

    said = [Sample("", f"{name} row {i}", name == "good") for name in ("bad", "good") for i in range(130)]
    found = measured(Reversed("x"), LabelSet.of(said, [f"a:{i}" for i in range(len(said))]))
    assert found["carriers"] == {"bad": 0, "good": 0, "own": False}
    assert (found["views"]["n"], found["views"]["rate"]) == (0, None)
    assert set(found["views"]["by_view"].values()) == {None}
    assert (found["seen"]["rate"], found["held_out"]["worst"], found["over_defence"]["rate"]) == (None, None, None)
    json.dumps(found, allow_nan=False)
    assert in_words(found)


def test_the_table_names_every_family():
    lines = "\n".join(in_words(measured(Believer("x"))))
    assert all(name in lines for name in ATTACKS.families)
