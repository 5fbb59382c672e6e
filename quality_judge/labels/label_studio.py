"""What Label Studio exports, read: its annotations become answers.

It reads both forms, JSON and JSON-MIN, as version 1.23 writes them: one choice or several, rating, pairwise, ranker,
taxonomy, and a text area as a note. It needs no package of theirs, and does not know what becomes of the labels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quality_judge.errors import InputError
from quality_judge.labels.label_studio_tasks import CATEGORIES, NO_CATEGORY, ROW, VERDICT
from quality_judge.labels.questions import (
    CATEGORY,
    GOOD_BAD,
    NOTE,
    PAIR,
    RANK,
    Answer,
    Question,
    as_question,
    verdict_of,
)
from quality_judge.rubric import Rubric
from quality_judge.samples import COMPLETION, COMPLETIONS, GROUP, PROMPT, ROW_ID, SOURCE, TEXT

NOTES = (NOTE, "why", "comment", "reason", "备注")
NONE = (NO_CATEGORY, "无", "clean")
OWN_CONTROLS = {VERDICT: GOOD_BAD, CATEGORIES: CATEGORY}
# Kinds of control, the one that counts first, and what several are called. plain: a choice in JSON-MIN, maybe data.
SELECTED, RANKER, TAXONOMY, CHOICES, PLAIN, RATING = "selected", "ranker", "taxonomy", "choices", "plain", "rating"
KINDS = {
    SELECTED: "pairwise answers", RANKER: "rankings", TAXONOMY: "taxonomies", CHOICES: "controls of choices",
    PLAIN: "controls of choices", RATING: "ratings",
}  # fmt: skip
WORDED = (TAXONOMY, CHOICES, PLAIN)  # of these one control may say several things
PAIRS = (
    ("a", "b"), ("left", "right"), ("text_a", "text_b"), ("answer_a", "answer_b"), ("response_a", "response_b"),
    ("text1", "text2"), ("answer1", "answer2"),
)  # fmt: skip
OWN_FIELDS = {
    "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", PROMPT, COMPLETION, TEXT,
    ROW, "items", "total_annotations", "cancelled_annotations", "inner_id", *(name for pair in PAIRS for name in pair),
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """One annotation: what was asked, how, and the answer. said: annotator, note, seconds, at."""

    question: Question
    mode: str
    answer: Answer
    said: Mapping[str, Any]


@dataclass
class Said:
    """What one annotation holds. values: by kind of control, each value with the name of its control."""

    values: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, kind: str, name: str, value: Any) -> None:
        """Keeps a value of that kind: a number of a rating, lists by bucket of a ranker, a list of any other."""
        self.values.setdefault(kind, []).append((name, value))

    def add(self, name: str, value: Any) -> None:
        """Takes in the value of the control of that name, as `result[].value` has it."""
        if not isinstance(value, Mapping):
            return
        self.notes += _strings(value.get("text"))
        for kind in (CHOICES, SELECTED):
            if words := _strings(value.get(kind)):
                self.put(kind, name, words)
        if isinstance(value.get(RATING), int | float):
            self.put(RATING, name, float(value[RATING]))
        if isinstance(value.get(RANKER), Mapping):
            self.put(RANKER, name, {bucket: _strings(ids) for bucket, ids in value[RANKER].items()})
        if isinstance(value.get(TAXONOMY), list):
            self.put(TAXONOMY, name, [path[-1] for path in map(_strings, value[TAXONOMY]) if path])


def is_export(rows: Sequence[object]) -> bool:
    """Whether the rows of a JSON file are an export of Label Studio, of either form."""
    first = rows[0] if rows else None
    return isinstance(first, Mapping) and ("annotation_id" in first or isinstance(first.get("annotations"), list))


def plain_choices(rows: Sequence[object], rubric: Rubric) -> set[str]:
    """The fields of JSON-MIN that hold a choice, where a choice looks like any column of the data.

    Those that `setup` names; else, where nothing is rated, the one field with words for a verdict, or the one that
    holds nothing else. Raises InputError where there are several.
    """
    tasks = [row for row in rows if isinstance(row, Mapping) and not isinstance(row.get("annotations"), list)]
    words: dict[str, list[str]] = {}
    for task in tasks:
        for name in _told(task) - OWN_FIELDS - set(NOTES):
            words.setdefault(name, []).extend(_strings(task[name]))
    if named := {name for name in words.keys() & OWN_CONTROLS if any(_is_choice(word, rubric) for word in words[name])}:
        return named
    if any(RATING in _said_in(task, ()).values for task in tasks):
        return set()
    some = {name for name, said in words.items() if any(_is_choice(word, rubric) for word in said)}
    only = {name for name in some if all(_is_choice(word, rubric) for word in words[name])}
    found = some if len(some) == 1 else only
    if some and len(found) != 1:
        raise InputError(
            f"{len(some)} of its columns hold words for a verdict; name the control verdict, or export as JSON"
        )
    return found


def _told(task: Mapping[str, Any]) -> set[str]:
    """The fields of a row of JSON-MIN that may be an answer: between its id and its annotator, where Label Studio puts
    them behind the data; all of them where these stand otherwise."""
    names, bounds = list(task), ("id", "annotator", "annotation_id")
    places = [names.index(name) for name in bounds if name in task]
    in_order = len(places) == len(bounds) and places == sorted(places)
    return set(names[places[0] : places[1]] if in_order else names)


def annotations_of(
    task: object, plain: Collection[str]
) -> Iterator[tuple[Mapping[str, Any], Said, dict[str, Any], bool]]:
    """Of one exported row, each annotation: (the task's data, what it holds, annotator and the like, cancelled).

    plain: the fields that hold a choice in plain text, see `plain_choices`.
    """
    if not isinstance(task, Mapping):
        return
    if isinstance(task.get("annotations"), list):
        data = task.get("data")
        for each in _mappings(task["annotations"]):
            said = Said()
            for result in _mappings(each.get("result")):
                said.add(str(result.get("from_name") or "unnamed"), result.get("value"))
            about = _about(each, "completed_by")
            yield data if isinstance(data, Mapping) else {}, said, about, bool(each.get("was_cancelled"))
        return
    yield task, _said_in(task, plain), _about(task, "annotator"), bool(task.get("was_cancelled"))


def as_found(
    data: Mapping[str, Any], said: Said, about: Mapping[str, Any], rubric: Rubric, *, rating_cut: float | None
) -> Found | str | None:
    """The answer in an annotation, None where it holds none, or what is wrong with it.

    rating_cut: the least rating that is good.
    """
    told = {**about, NOTE: " ".join(said.notes)}
    kind = next((kind for kind in KINDS if kind in said.values), None)
    if kind is None:
        return None
    names, values = zip(*said.values[kind], strict=True)
    if fault := _unclear(kind, names):
        return fault
    if kind in WORDED:
        mode = None if kind == TAXONOMY else OWN_CONTROLS.get(names[0])
        return _chosen(data, [word for words in values for word in words], mode, rubric, told)
    if kind == SELECTED:
        return _found(data, PAIR, {"left": 0, "right": 1}.get(values[0][0]), told)
    if kind == RANKER:
        return _ranked(data, values[0], rubric, told)
    if rating_cut is None:
        return "is a rating; say with --rating-cut from which rating on a text is good"
    return _found(data, GOOD_BAD, values[0] >= rating_cut, told)


def _unclear(kind: str, names: Sequence[str]) -> str | None:
    controls = list(dict.fromkeys(names))
    count = len(controls if kind in WORDED else names)
    named = f"{count} {KINDS[kind]} ({', '.join(controls)})"
    return None if count == 1 else f"holds {named} and does not say which counts; keep one control in the export"


def _is_choice(word: str, rubric: Rubric) -> bool:
    known = {*NONE, *(name for each in rubric.categories for name in (each.code, each.name))}
    return word in known or verdict_of(word, rubric) is not None


def _chosen(
    data: Mapping[str, Any], words: Sequence[str], mode: str | None, rubric: Rubric, told: Mapping[str, Any]
) -> Found | str:
    """The verdict or the categories in these words. mode: what they are, where the control is one of ours."""
    codes = {name: each.code for each in rubric.categories for name in (each.code, each.name)}
    known = {} if mode == GOOD_BAD else codes
    own = {rubric.good.strip().casefold(), rubric.bad.strip().casefold()}
    verdict = verdict_of(words[0], rubric) if len(words) == 1 and mode != CATEGORY else None
    # A category's code may be a common word for a verdict, such as 1, G or N; then it is the category.
    if verdict is not None and (words[0] not in known or words[0].strip().casefold() in own):
        return _found(data, GOOD_BAD, verdict, told)
    odd = [word for word in words if word not in known and word not in NONE]
    if odd or not known:
        either = "neither good nor bad, nor categories"
        wrong = {GOOD_BAD: "neither good nor bad by words", CATEGORY: "no categories"}.get(mode or "", either)
        return (
            f"{len(odd or words)} of its choices are {wrong} of the rubric {rubric.name!r}; "
            f"give the --rubric that has these words"
        )
    found = {known[word] for word in words if word in known}
    return _found(data, CATEGORY, {each.code: each.code in found for each in rubric.categories}, told)


def _ranked(
    data: Mapping[str, Any], ranker: Mapping[str, list[str]], rubric: Rubric, told: Mapping[str, Any]
) -> Found | str:
    buckets = {verdict_of(name, rubric): ids for name, ids in ranker.items()}
    cut = len(buckets[True]) if set(buckets) == {True, False} else None
    ids = [*buckets[True], *buckets[False]] if cut is not None else [each for part in ranker.values() for each in part]
    items = next((items for items in _item_lists(data) if sorted(_item_ids(items)) == sorted(ids)), None)
    if (cut is None and len(ranker) > 1) or items is None:
        return "its order does not name each item of the task once; expected one ranking of all items"
    own = _item_ids(items)
    return _found({**data, "items": items}, RANK, (tuple(own.index(each) for each in ids), cut), told)


def _item_lists(data: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    """The lists of the task that may be what was ranked."""
    for value in data.values():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            yield value


def _item_ids(items: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(item.get("id")) for item in items]


def _found(data: Mapping[str, Any], mode: str, answer: Answer | None, told: Mapping[str, Any]) -> Found | str:
    if answer is None:
        return "selects neither left nor right"
    cells = _cells(data, mode)
    question, faults = (None, ["the task has no text that we know"]) if cells is None else as_question(cells, mode)
    return "; ".join(faults) if question is None else Found(question, mode, answer, told)


def _cells(data: Mapping[str, Any], mode: str) -> dict[str, Any] | None:
    """The task as a row of a label file, or None when it is not known where its text stands."""
    own = {SOURCE: data.get(SOURCE), GROUP: data.get(GROUP), ROW_ID: data.get("row_id")}
    kept = data[ROW] if isinstance(data.get(ROW), Mapping) else own
    cells = {**kept, PROMPT: data.get(PROMPT) or ""}
    if mode == PAIR:
        pair = next((pair for pair in PAIRS if all(isinstance(data.get(name), str) for name in pair)), None)
        return None if pair is None else cells | {COMPLETIONS: [data[name] for name in pair]}
    if mode == RANK:
        named = ("body", "html", "text", "title")
        texts = [next(filter(None, map(item.get, named)), None) for item in data["items"]]
        return cells | {COMPLETIONS: texts}
    text = data.get(COMPLETION) or data.get(TEXT)
    return None if text is None else cells | {COMPLETION: text}


def _about(each: Mapping[str, Any], who: str) -> dict[str, Any]:
    """annotator, seconds and at. An annotator is a number, or with some exports an object."""
    name = each.get(who)
    if isinstance(name, Mapping):
        name = name.get("email") or name.get("id")
    seconds = each.get("lead_time")
    return {
        "annotator": None if name is None else str(name), "seconds": seconds, "at": each.get("created_at"),
    }  # fmt: skip


def _said_in(task: Mapping[str, Any], plain: Collection[str]) -> Said:
    """What a row of JSON-MIN holds beside its data."""
    said = Said()
    for name, value in task.items():
        if name not in OWN_FIELDS:
            _add_short(said, name, value, plain)
    return said


def _add_short(said: Said, name: str, value: Any, plain: Collection[str]) -> None:
    """Takes in a field of JSON-MIN, where a single choice or note is plain text and the rest a list."""
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, Mapping):
            said.add(name, part)
        elif isinstance(part, list):
            if path := _strings(part):
                said.put(TAXONOMY, name, path[-1:])
        elif isinstance(part, str) and name in NOTES:
            said.notes.append(part)
        elif isinstance(part, str) and name in plain:
            said.put(CHOICES if name in OWN_CONTROLS else PLAIN, name, [part])


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
