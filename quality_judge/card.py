"""The model card of a judge (card.md) and its numbers (metrics.json): how both are written.

The card states what a judge is for, how well it does beside its baselines, and what it does not promise.
It computes no metric and sees no row: what it prints are names, counts and scores it was handed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from quality_judge.card_audits import redteam_in_words, shortcuts_in_words
from quality_judge.card_labels import labels_in_words, teacher_in_words
from quality_judge.errors import InputError
from quality_judge.files import write_beside
from quality_judge.judge_spec import MISSING_LABELS
from quality_judge.markdown import calibration_plot, percent
from quality_judge.markdown import count as _count
from quality_judge.markdown import number as _number
from quality_judge.markdown import plain as _plain
from quality_judge.markdown import table as _table
from quality_judge.markdown import with_interval as _with_interval
from quality_judge.metrics_file import METRICS, best_baseline, contenders, finite, metric_names
from quality_judge.promise import promise_in_words

LIMITS = (
    "The judge repeats the taste of the people who labelled; where they were wrong or one-sided, so is it.",
    "The numbers hold for rows like the test rows. Another source, language or length needs its own labels.",
    "A probability is calibrated on average, not for every kind of row; look at the report's slices before a big run.",
    "Rows written to please a judge can fool it. A score is no safety barrier by itself.",
)
LEAST_UNREAD = 0.01
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def render_card(judge: Mapping[str, Any], metrics: Mapping[str, Any], labels: Mapping[str, Any]) -> str:
    """card.md: YAML front matter as the Hugging Face hub reads it, then Markdown.

    judge: what judge.json says. metrics: metrics.json. labels: counts, flat or one mapping for each split.
    A part that is missing is said to be missing.
    """
    head = yaml.safe_dump(_front_matter(judge, metrics), sort_keys=False, allow_unicode=True)
    sections = [
        f"# {_plain(judge.get('name') or 'A quality judge')}",
        _opening(judge),
        "## What it judges\n\n" + _rubric(judge),
        "## Labels\n\n" + labels_in_words(labels or metrics.get("labels") or {}),
        *_unlabelled(judge),
        *teacher_in_words(metrics),
        "## How well it judges\n\n" + _quality(metrics),
        "## Calibration\n\n" + _calibration(judge, metrics),
        "## What is promised\n\n" + promise_in_words(metrics),
        *shortcuts_in_words(metrics),
        *redteam_in_words(metrics),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
        "## How to make it again\n\n" + _reproduce(judge, metrics),
    ]
    return f"---\n{head}---\n\n" + "\n\n".join(sections) + "\n"


def write_card(path: str | Path, text: str) -> None:
    """Writes the card: beside, then renamed."""
    write_beside(path, text)


def write_metrics(path: str | Path, metrics: Mapping[str, Any]) -> None:
    """Writes metrics.json: beside, then renamed. Raises InputError that names the first number that is not finite."""
    wrong = _not_finite(metrics)
    if wrong is not None:
        raise InputError(f"metrics: {wrong} is not a finite number; write null where a metric does not apply")
    write_beside(path, json.dumps(metrics, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def _front_matter(judge: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    base = _base(judge)
    test = metrics.get("test") or {}
    results = [
        {"type": name, "name": METRICS.get(name, name), "value": round(value, 6)}
        for name in metric_names({"test": test})
        if (value := finite(test.get(name))) is not None
    ]
    head: dict[str, Any] = {"library_name": "quality-judge", "pipeline_tag": "text-classification"}
    head |= {key: judge[key] for key in ("license", "language") if judge.get(key)}
    if base is not None and HUB_ID.fullmatch(base):
        head["base_model"] = base
    if results:
        head["metrics"] = [each["type"] for each in results]
    kind = judge.get("kind")
    head["tags"] = ["quality-judge", "data-quality", "data-filtering", *([f"kind:{kind}"] if kind else [])]
    if results:
        task = {"type": "text-classification", "name": "quality judgement"}
        dataset = {"name": "held-out expert labels", "type": "expert-labels", "split": "test"}
        head["model-index"] = [
            {
                "name": str(judge.get("name") or "quality-judge"),
                "results": [{"task": task, "dataset": dataset, "metrics": results}],
            }
        ]
    return head


def _opening(judge: Mapping[str, Any]) -> str:
    facts = [("Kind", judge.get("kind")), ("Base", _base(judge)), ("Fingerprint", judge.get("fingerprint"))]
    lines = [f"- {what}: `{_plain(value)}`" for what, value in facts if value]
    what = "A judge that gives every row the probability that an expert would call it good."
    if "calibration" in judge and judge["calibration"] is None:
        what = (
            "A judge that puts rows in the order an expert would: of two rows the better one has the higher raw score."
        )
    return "\n\n".join([what, "\n".join(lines), *_bases_tried(judge), *_unread(judge)])


def _bases_tried(judge: Mapping[str, Any]) -> list[str]:
    """The bases that were compared before this one was fine-tuned; nothing when it was the only one."""
    tried = (judge.get("training") or {}).get("bases") or {}
    rows = [
        [_base({"base": name}), _number(found.get("frozen")), _number(found.get("gigaflops_per_text"), 1)]
        for name, found in tried.items()
    ]
    header = ["base tried", "order of unseen labels, untrained", "10⁹ operations a text"]
    return [_table(header, rows)] if rows else []


def _unread(judge: Mapping[str, Any]) -> list[str]:
    """How much of its labels it does not read; nothing where that is next to none."""
    training = judge.get("training") or {}
    unknown, cut = (finite(training.get(name)) or 0.0 for name in ("unknown_tokens", "cut_texts"))
    unread = f"Of a labelled text's tokens {percent(unknown)} are unknown to its base, which reads nothing of them."
    long = f"{percent(cut)} of the labelled texts are longer than what it reads of one."
    return [said for share, said in ((unknown, unread), (cut, long)) if share >= LEAST_UNREAD]


def _unlabelled(judge: Mapping[str, Any]) -> list[str]:
    """How many texts it learnt from that nobody labelled; nothing where there were none."""
    count = ((judge.get("training") or {}).get("surface") or {}).get("unlabelled_texts")
    said = f"Which words go together it learnt from {_count(count)} more texts of the corpus, which nobody labelled."
    return [said] if count else []


def _base(judge: Mapping[str, Any]) -> str | None:
    base = judge.get("base")
    if isinstance(base, Mapping):
        base = base.get("id") or base.get("name")
    # A folder on somebody's machine tells a reader nothing; its last name does.
    return None if not base else Path(str(base)).name if str(base).startswith(("/", ".", "~")) else str(base)


def _rubric(judge: Mapping[str, Any]) -> str:
    rubric = judge.get("rubric")
    if not rubric:
        return "No rubric is stated; the labels alone say what is good."
    lines = [f"**{_plain(rubric.get('name', 'rubric'))}**", "", f"> {_plain(rubric.get('criteria', ''))}"]
    if rubric.get("good") and rubric.get("bad"):
        lines += ["", f"Verdicts: `{_plain(rubric['good'])}` or `{_plain(rubric['bad'])}`."]
    rows = [[item.get("code"), item.get("name"), item.get("description")] for item in rubric.get("categories") or ()]
    return "\n".join(lines) + ("\n\n" + _table(["code", "category", "what falls under it"], rows) if rows else "")


def _quality(metrics: Mapping[str, Any]) -> str:
    scored = contenders(metrics)
    names = metric_names(metrics)
    if "judge" not in scored or not names:
        return "The judge was not tested on held-out labels: nothing is known of its quality."
    header = ["metric", *(name.replace("_", " ") for name in scored)]
    rows = [[METRICS.get(name, name), *(_with_interval(scores, name) for scores in scored.values())] for name in names]
    n = _count(scored["judge"].get("n"))
    parts = [f"On {n} held-out labels; in brackets the bootstrap interval.", _table(header, rows), _comparison(metrics)]
    categories = scored["judge"].get("per_category")
    if isinstance(categories, Mapping) and categories:
        kinds = metric_names({"baselines": categories})
        cells = [[who, *(_with_interval(scores, name) for name in kinds)] for who, scores in categories.items()]
        parts.append(_table(["category", *(METRICS.get(name, name) for name in kinds)], cells))
    return "\n\n".join(parts)


def _comparison(metrics: Mapping[str, Any]) -> str:
    best = best_baseline(metrics)
    own = finite((metrics.get("test") or {}).get("roc_auc"))
    if best is None or own is None:
        return "There is no baseline to compare it with."
    verdict = "ahead of" if own > best[1] else "**not ahead of**"
    rival = _plain(best[0].replace("_", " "))
    return f"By ROC AUC the judge ({own:.3f}) is {verdict} its best baseline, {rival} ({best[1]:.3f})."


def _calibration(judge: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    method = judge.get("calibration")
    if "calibration" in judge and method is None:
        missing = _count((judge.get("labels") or {}).get(MISSING_LABELS))
        return (
            "**No probability is stated.** Too few texts were called good or bad, and an order says only which of two "
            f"is better. {missing} more labels are needed: samples, category rows, or rankings with a cut, given to "
            "`train_judge.py` or `calibrate_judge.py`. Until then `quality_score` is null; rows can be kept by rank."
        )
    method = method.get("method") if isinstance(method, Mapping) else method
    test = metrics.get("test") or {}
    text = f"Method: {_plain(method or 'not stated')}. Expected calibration error: {_with_interval(test, 'ece')}."
    bins = (metrics.get("curves") or {}).get("reliability") or []
    plot = calibration_plot(bins)
    rows = [
        [
            f"{_number(each.get('low'), 2)} to {_number(each.get('high'), 2)}",
            _count(each.get("n")),
            _number(each.get("mean_probability")),
            _with_interval({"good": each.get("fraction_good"), "good_ci": each.get("ci")}, "good"),
        ]
        for each in bins
        if each.get("n")
    ]
    if not rows:
        return f"{text} No reliability curve was recorded."
    how = "`o` is the share of truly good rows, `=` its 95% interval, `|` what the judge said; `o` on `|` is right."
    return f"{text}\n\n{how}\n\n{plot}\n\n" + _table(["probability", "labels", "mean probability", "truly good"], rows)


def _reproduce(judge: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    command = (judge.get("training") or {}).get("command") or (
        "python training/train_judge.py --config CONFIG.yaml --labels LABELS.jsonl --output JUDGE\n"
        "python training/evaluate_judge.py --judge JUDGE --labels TEST.jsonl --output metrics.json"
    )
    parts = ["```bash\n" + str(command).replace("```", "") + "\n```"]
    versions = judge.get("versions") or judge.get("created_with") or {}
    if versions:
        parts.append("Made with " + ", ".join(f"{_plain(name)} {_plain(versions[name])}" for name in versions) + ".")
    spent = {name: value for name, value in (metrics.get("seconds") or {}).items() if finite(value) is not None}
    if spent:
        parts.append(_table(["step", "seconds"], [[name, _number(value, 1)] for name, value in spent.items()]))
    return "\n\n".join(parts)


def _not_finite(value: Any, where: str = "metrics") -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return where
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    return next((found for key, each in inner if (found := _not_finite(each, f"{where}.{key}"))), None)
