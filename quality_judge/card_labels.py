"""What the card says of labels: their counts, how far annotators agree, what an audit suspects, who taught a student.

It counts nothing itself and sees no row: it is handed what metrics.json says under `labels` and `distillation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quality_judge.markdown import count, counted, number, plain, short, table, with_interval
from quality_judge.metrics_file import finite, unlike

NO_SPLITS = ("agreement", "suspects", "likeness")


def labels_in_words(labels: Mapping[str, Any]) -> str:
    """How many labels of each split there are, how far their annotators agree, and what an audit found."""
    agreement = labels.get("agreement") or {}
    splits = {
        name: counts
        for name, counts in labels.items()
        if isinstance(counts, Mapping) and counts and name not in NO_SPLITS
    }
    flat = {name: value for name, value in labels.items() if finite(value) is not None}
    keys = list(dict.fromkeys(key for counts in splits.values() for key in counts))
    parts = []
    if flat:
        parts.append(table(["labels", "count"], [[name, count(value)] for name, value in flat.items()]))
    if splits:
        rows = [[name, *(count(counts.get(key)) for key in keys)] for name, counts in splits.items()]
        parts.append(table(["split", *keys], rows))
    if any(agreement.get(said) for said in ("annotators", "category_alpha", "shared_orders")):
        parts.append(_agreement(agreement))
    if labels.get("suspects"):
        parts.append(_suspects(labels["suspects"]))
    if labels.get("likeness"):
        parts.append(_likeness(labels["likeness"]))
    return "\n\n".join(parts) or "No label counts were handed over."


def _suspects(found: Mapping[str, Any]) -> str:
    """How many labels an audit would have an expert look at again, and why."""
    triggers, annotators = found.get("triggers") or (), found.get("annotators") or {}
    text = f"An audit lists {counted(found.get('listed'), 'label')} for a second look: the tenth least like the rest"
    if triggers:
        rows = sum(each["rows"] for each in triggers)
        said = counted(len(triggers), "n-gram goes", "n-grams go")
        text += f"; **{said} with one label against all else in {rows} rows**"
    if annotators:
        text += f"; **contradicted far more often than others: {', '.join(map(plain, annotators))}**"
    return text + "."


def _likeness(found: Mapping[str, Any]) -> str:
    """How far labelled texts can be told from the corpus, and what that means for what is promised."""
    text = (
        f"Of {count(found.get('labelled_texts'))} labelled texts and {count(found.get('corpus_texts'))} of the corpus "
        "a classifier that sees n-grams and length tells which are which with a ROC AUC of "
        f"{with_interval(found, 'roc_auc')}; length alone {number(found.get('length_only'))}. Labels drawn from the "
        "corpus at random have .5."
    )
    warning = " **The labels are unlike the corpus: probabilities and certificate hold for rows like the labels.**"
    return text + warning * unlike(found)


def _agreement(agreement: Mapping[str, Any]) -> str:
    """How far several annotators agree, and what each is worth; those hardly better than a coin by name."""
    shared, alpha = counted(agreement.get("shared_rows"), "row"), number(agreement.get("alpha"))
    parts = []
    if agreement.get("shared_rows") or not agreement.get("shared_orders"):
        parts.append(f"Several annotators judged {shared}; Krippendorff's alpha {alpha} (1 is agreement, 0 is chance).")
    if agreement.get("shared_orders"):
        orders = counted(agreement["shared_orders"], "pair or ranking", "pairs and rankings")
        alpha = number(agreement.get("order_alpha"))
        parts.append(f"Several annotators judged {orders}; Krippendorff's alpha over each two texts {alpha}.")
    by_category = agreement.get("category_alpha") or {}
    if by_category:
        parts.append(table(["category", "alpha"], [[name, number(value)] for name, value in by_category.items()]))
    keys = ("verdicts", "shared", "sensitivity", "specificity")
    rows = [
        [name, *(count(facts.get(key)) for key in keys[:2]), *(number(facts.get(key)) for key in keys[2:])]
        for name, facts in (agreement.get("annotators") or {}).items()
    ]
    if rows:
        parts.append(table(["annotator", *keys], rows))
    pairs = [[*pair["annotators"], pair["rows"], number(pair["kappa"])] for pair in agreement.get("kappa") or ()]
    if pairs:
        parts.append(table(["annotator", "and", "rows of both", "Cohen's kappa"], pairs))
    if agreement.get("distrusted"):
        names = ", ".join(plain(name) for name in agreement["distrusted"])
        parts.append(f"**Hardly better than a coin, and counted for next to nothing: {names}.**")
    return "\n\n".join(parts)


def teacher_in_words(metrics: Mapping[str, Any]) -> list[str]:
    """A section: who taught a distilled judge, whose probability it states, and how far it agrees with its teacher."""
    facts = metrics.get("distillation")
    if not facts:
        return []
    teacher, agreement = facts.get("teacher") or {}, facts.get("agreement") or {}
    whose = (
        "It was calibrated by experts afterwards."
        if facts.get("calibrated_by") == "experts"
        else "No expert has judged this student: its probability is that of the teacher, who may be wrong."
    )
    rows = [[name.replace("_", " "), short(agreement.get(name))] for name in agreement]
    return [
        f"## Its teacher\n\nIt learnt what `{plain(teacher.get('name'))}` (fingerprint "
        f"`{plain(teacher.get('fingerprint'))}`) said of rows that nobody had labelled. {whose}\n\n"
        + table(["agreement on rows it had not seen", ""], rows)
    ]
