"""The figures of `scoring.py` as a Markdown table with bars; it measures nothing."""

from __future__ import annotations

from pathlib import Path

WIDTH = 40


def write_table(result: dict, path: Path) -> None:
    """Writes the table."""
    machine = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    lines = [
        "# Scoring speed", "", f"`make bench`; corpus: {result['corpus']}; {machine}.", "",
        "Times as fast as what most people write: batches of 32 in order of arrival, padded to the longest, float32;",
        "for whole Spark jobs, as the same loop in a pandas UDF. Scores are held against ours in float32.", "",
    ]  # fmt: skip
    for name, entry in result["judges"].items():
        share = f"{entry['share_of_matmul_peak']:.0%} of the fastest {entry['precision']} matrix product"
        lines += [
            f"## {name}", "",
            f"{entry['rows']} rows of {entry['mean_tokens']:.0f} tokens ({entry['shared_tokens']} in every row); "
            f"medians of {entry['rounds']} interleaved rounds.",
            f"The engine is {entry['engine_to_best_peer']} times as fast as the best peer ({entry['best_peer']}). It "
            f"reaches {share} of the same run, tokens counted without padding.", "",
            "| contender | times as fast | | raw scores apart | decisions changed |", "|---|---|---|---|---|",
        ]  # fmt: skip
        ratios = [one["times_as_fast"] for one in entry["contenders"].values() if "times_as_fast" in one]
        for contender, one in entry["contenders"].items():
            lines.append(_row(contender, one, max(ratios)))
        lines.append("")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(name: str, one: dict, most: float) -> str:
    if "failed" in one:
        return f"| {name} | did not run: {one['failed'].replace('|', '/')} | | | |"
    bar = "█" * max(1, round(WIDTH * one["times_as_fast"] / most))
    apart, changed = one["largest_difference"], one["decisions_changed"]
    said = ("other weights", "") if apart is None else (f"{apart:.1g}", f"{changed:.1%}")
    return f"| {name} | {one['times_as_fast']:.2f} | {bar} | {said[0]} | {said[1]} |"
