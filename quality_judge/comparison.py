"""Two judges, or two runs, side by side: what differs, by how much, and whether that may be chance.

    compare(read_side("judges/a"), read_side("judges/b"))       judge folders
    compare(read_side("filtered-1"), read_side("filtered-2"))   folders that filter_corpus wrote

Its marks stand in `comparison.html.jinja`, its words in `words.yaml`. It reads JSON only: no weights, no row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quality_judge.errors import CorpusError, InputError
from quality_judge.judge import JUDGE_FILE, METRICS_FILE, load_judge
from quality_judge.metrics_file import LOWER_IS_BETTER, finite, interval, metric_names
from quality_judge.pages import flat, page_words, percent, render
from quality_judge.profile import ScoreProfile
from quality_judge.report_charts import View, histogram, reliability
from quality_judge.scores import DECISIONS

MANIFEST_FILE = "_quality_manifest.json"
PROFILE_FILE = "_quality_profile.json"
MAX_VALUES = 15
MAX_COLUMNS = 4
FLOOR = 1e-4  # of a bin's share, so that an empty bin does not make the index infinite
COMPARED_FACTS = ("kind", "method", "base", "rubric", "calibration", "license", "language", "created_with")


@dataclass(frozen=True)
class Side:
    """One of the two: a judge (what judge.json and metrics.json say) or a run (its manifest and its profile)."""

    name: str
    kind: Literal["judge", "run"]
    says: Mapping[str, Any]
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One row of a comparison: both values with their intervals, b - a, and which is better where that can be told."""

    name: str
    a: float | None
    b: float | None
    a_bounds: tuple[float, float] | None = None
    b_bounds: tuple[float, float] | None = None
    better: Literal["a", "b", "open", ""] = ""

    @property
    def difference(self) -> float | None:
        """b - a."""
        return None if self.a is None or self.b is None else self.b - self.a


def read_side(folder: str | Path) -> Side:
    """The judge or the run in `folder`. Raises JudgeError for a damaged judge, CorpusError where there is neither."""
    folder = Path(folder)
    if (folder / JUDGE_FILE).is_file():
        judge = load_judge(folder)
        says = {**judge.spec.model_dump(mode="json"), "fingerprint": judge.fingerprint}
        metrics = json.loads(judge.path(METRICS_FILE).read_text(encoding="utf-8"))
        return Side(folder.resolve().name, "judge", says, metrics)
    try:
        manifest, counts = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in (MANIFEST_FILE, PROFILE_FILE)
        )
    except (OSError, ValueError):
        raise CorpusError(f"{folder} is neither a judge nor a folder that filter_corpus.py wrote") from None
    return Side(folder.resolve().name, "run", manifest, counts)


def compare(a: Side, b: Side) -> dict[str, list[Line]]:
    """The lines of each part. Raises InputError where a judge would be compared with a run."""
    if a.kind != b.kind:
        raise InputError(f"{a.name} is a {a.kind} and {b.name} a {b.kind}; compare two judges or two runs")
    return {"metrics": metric_lines(a.numbers, b.numbers)} if a.kind == "judge" else run_lines(a.numbers, b.numbers)


def metric_lines(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Line]:
    """A line for each metric that either judge has; better is told only where the intervals are apart."""
    tests = [side.get("test") or {} for side in (a, b)]
    names = metric_names({"baselines": dict(zip("ab", tests, strict=True))})
    return [_metric_line(name, *tests) for name in names]


def run_lines(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Line]]:
    """Shares by decision and by code, and for each column that both have the keep rate of its values."""
    parts = {
        "decisions": [Line(name, _share(a["decisions"], name), _share(b["decisions"], name)) for name in DECISIONS],
        "codes": [
            Line(name, _share(a.get("codes") or {}, name), _share(b.get("codes") or {}, name))
            for name in sorted({*(a.get("codes") or {}), *(b.get("codes") or {})})
        ],
    }
    slices = [side.get("slices") or {} for side in (a, b)]
    for column in [name for name in slices[0] if name in slices[1]][:MAX_COLUMNS]:
        rates = [{row["value"]: row["kept"] / row["rows"] for row in side[column] if row["rows"]} for side in slices]
        order = [row["value"] for row in sorted(slices[0][column], key=lambda row: -row["rows"])][:MAX_VALUES]
        parts[f"slices {column}"] = [Line(value, rates[0].get(value), rates[1].get(value)) for value in order]
    return parts


def stability_index(a: Mapping[str, Sequence[int]], b: Mapping[str, Sequence[int]]) -> float | None:
    """The population stability index of two score histograms, over all decisions; None where one is empty."""
    totals = [[sum(bins) for bins in zip(*side.values(), strict=True)] if side else [] for side in (a, b)]
    if not all(sum(total) for total in totals) or len(totals[0]) != len(totals[1]):
        return None
    shares = [[max(n / sum(total), FLOOR) for n in total] for total in totals]
    return sum((y - x) * math.log(y / x) for x, y in zip(*shares, strict=True))


def same_labels(a: Side, b: Side) -> bool | None:
    """Whether both judges were measured on the same labels; None where that was not recorded."""
    hashes = [(side.numbers.get("labels") or {}).get("held_out_sha256") for side in (a, b)]
    return None if None in hashes else hashes[0] == hashes[1]


def render_comparison(a: Side, b: Side, *, language: str = "en") -> str:
    """The whole page as HTML text, everything in it escaped."""
    words, parts = page_words(language), compare(a, b)
    marks = [side.says.get("fingerprint") or side.says.get("judge") or "" for side in (a, b)]
    view: View = {"names": [a.name, b.name], "marks": marks, "kind": a.kind, "parts": _named(parts, words)}
    if a.kind == "judge":
        known = {True: "compare_same", False: "compare_other", None: "compare_unknown"}[same_labels(a, b)]
        curves = [(side.numbers.get("curves") or {}).get("reliability") or () for side in (a, b)]
        view |= {"notes": [words[known], words["compare_chance"]], "charts": [reliability(each) for each in curves]}
        view |= {"facts": _facts(a.says, b.says, words)}
    else:
        index = stability_index(a.numbers.get("histogram") or {}, b.numbers.get("histogram") or {})
        said = [] if index is None else [words["compare_psi"].format(value=f"{index:.3f}")]
        profiles = [ScoreProfile.from_dict(side.numbers) for side in (a, b)]
        cuts = [[("keep", cut)] if (cut := finite(side.says.get("keep_at"))) is not None else [] for side in (a, b)]
        charts = [histogram(profile, cut) for profile, cut in zip(profiles, cuts, strict=True)]
        view |= {"notes": said, "charts": charts, "facts": []}
    return render("comparison.html.jinja", language, view=view)


def _metric_line(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Line:
    values, bounds = [finite(side.get(name)) for side in (a, b)], [interval(side, name) for side in (a, b)]
    better: Literal["a", "b", "open", ""] = ""
    if None not in values and bounds[0] and bounds[1]:
        apart = bounds[0][1] < bounds[1][0] or bounds[1][1] < bounds[0][0]
        higher: Literal["a", "b"] = "b" if values[1] > values[0] else "a"  # type: ignore[operator]
        lower: Literal["a", "b"] = "a" if higher == "b" else "b"
        better = "open" if not apart else lower if name in LOWER_IS_BETTER else higher
    return Line(name, values[0], values[1], bounds[0], bounds[1], better)


def _share(counts: Mapping[str, Any], name: str) -> float | None:
    total = sum(finite(value) or 0 for value in counts.values())
    return (finite(counts.get(name)) or 0.0) / total if total else None


def _named(parts: Mapping[str, Sequence[Line]], words: Mapping[str, str]) -> list[View]:
    """Each part with its title and its lines, names in the words of the reader."""
    found = []
    for part, lines in parts.items():
        column = part.removeprefix("slices ")
        titles = {"metrics": words["compare_metrics"], "decisions": words["compare_counts"], "codes": words["codes"]}
        title = titles.get(part) or words["compare_slices"].format(column=column)
        keys = {"metrics": "metric_", "decisions": "d_", "codes": "code_"}
        prefix = keys.get(part)
        shown = [
            {"name": words.get(f"{prefix}{line.name}", line.name) if prefix else line.name, "line": line}
            for line in lines
        ]
        found.append({"title": title, "shares": part != "metrics", "lines": shown})
    return found


def _facts(a: Mapping[str, Any], b: Mapping[str, Any], words: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(what, of a, of b) where they differ."""
    names = {"base": "j_base", "kind": "j_kind", "method": "j_method", "rubric": "j_rubric", "license": "j_license",
             "calibration": "j_calibration", "language": "j_language", "created_with": "p_versions"}  # fmt: skip
    different = [name for name in COMPARED_FACTS if a.get(name) != b.get(name)]
    facts = [(words[names[name]], flat(a.get(name)), flat(b.get(name))) for name in different]
    cuts = [{k: v for k, v in (side.get("thresholds") or {}).items() if v is not None} for side in (a, b)]
    return facts + ([(words["j_thresholds"], flat(cuts[0]), flat(cuts[1]))] if cuts[0] != cuts[1] else [])


def shown(value: float | None, *, share: bool) -> str:
    """A value of a line as text: a share in percent, a metric with three decimals."""
    return "–" if value is None else percent(value) if share else f"{value:.3f}"
