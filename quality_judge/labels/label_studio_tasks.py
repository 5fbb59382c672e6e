"""Questions as Label Studio's tasks, and its labelling set-up for them. It knows nothing of what experts answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from quality_judge.errors import InputError
from quality_judge.labels.questions import CATEGORY, GOOD_BAD, PAIR, RANK, Question
from quality_judge.rubric import Rubric
from quality_judge.samples import COMPLETION, PROMPT, TEXT
from quality_judge.scores import SCORE_COLUMN

ROW = "row"  # where a task carries the other columns of its row
VERDICT, CATEGORIES = "verdict", "categories"  # the controls of choices
NO_CATEGORY = "none"


def tasks(questions: Sequence[Question], mode: str, rubric: Rubric, *, predict: bool = False) -> list[dict[str, Any]]:
    """Tasks to import: the texts, and under `row` the other columns, but never the score, which would lead the expert.

    predict: with the judge's verdict on each text as a pre-annotation, where it has a score (mode good-bad).
    """
    made = []
    for question in questions:
        task: dict[str, Any] = {"data": _data(question, mode)}
        score = question.cells.get(SCORE_COLUMN)
        if predict and mode == GOOD_BAD and isinstance(score, int | float):
            word = rubric.good if score >= 0.5 else rubric.bad
            value = {"choices": [word]}
            result = {"from_name": VERDICT, "to_name": TEXT, "type": "choices", "value": value}
            task["predictions"] = [{"model_version": "quality-judge", "score": float(score), "result": [result]}]
        made.append(task)
    return made


def setup(mode: str, rubric: Rubric) -> str:
    """The labelling set-up (XML) for tasks of that mode. Raises InputError for categories that the rubric lacks."""
    if mode == CATEGORY and not rubric.categories:
        raise InputError(f"the rubric {rubric.name!r} has no categories; give one that has")
    head = f"<Header value={quoteattr(rubric.criteria)} size='6'/>\n  <Text name='prompt' value='$prompt'/>"
    text = "<Text name='text' value='$completion'/>"
    verdicts = "".join(f"<Choice value={quoteattr(word)}/>" for word in (rubric.good, rubric.bad))
    codes = "".join(
        f"<Choice value={quoteattr(each.code)} hint={quoteattr(f'{each.name} {each.description}'.strip())}/>"
        for each in rubric.categories
    )
    many = (
        f"<Choices name='{CATEGORIES}' toName='text' choice='multiple'><Choice value='{NO_CATEGORY}'/>{codes}</Choices>"
    )
    body = {
        GOOD_BAD: f"{text}\n  <Choices name='{VERDICT}' toName='text' choice='single'>{verdicts}</Choices>",
        PAIR: "<Pairwise name='pair' toName='a,b'/>\n  <Text name='a' value='$a'/><Text name='b' value='$b'/>",
        RANK: "<List name='items' value='$items' title='Best first'/>\n  <Ranker name='rank' toName='items'/>",
        CATEGORY: f"{text}\n  {many}",
    }[mode]
    about = {PAIR: "a", RANK: "prompt"}.get(mode, "text")
    return f"<View>\n  {head}\n  {body}\n  <TextArea name='note' toName='{about}' rows='1'/>\n</View>\n"


def _data(question: Question, mode: str) -> dict[str, Any]:
    kept = {name: value for name, value in question.cells.items() if name != SCORE_COLUMN}
    data: dict[str, Any] = {PROMPT: question.prompt, ROW: kept}
    if mode == PAIR:
        return data | dict(zip("ab", question.texts, strict=True))
    if mode == RANK:
        items = [{"id": f"d{at + 1}", "title": f"{at + 1}", "body": text} for at, text in enumerate(question.texts)]
        return data | {"items": items}
    return data | {COMPLETION: question.texts[0]}
