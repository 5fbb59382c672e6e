"""The figures of `scoring.py` as a Markdown table and as an SVG chart; it measures nothing."""

from __future__ import annotations

from html import escape
from pathlib import Path

OURS = ("engine", "engine float32", "spark")
WIDTH, NAME, ROW = 760, 190, 22


def write_table(result: dict, path: Path) -> None:
    """Writes the table."""
    machine = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    lines = [
        "# Scoring speed", "", f"`make bench`; corpus: {result['corpus']}; {machine}.", "",
        "Times as fast as what most people write: batches of 32 in order of arrival, padded to the longest, float32;",
        "for whole Spark jobs, as the same loop in a pandas UDF. Raw scores are held against the same weights in",
        "float32.", "", f"![times as fast]({path.with_suffix('.svg').name})", "",
    ]  # fmt: skip
    for name, entry in result["judges"].items():
        lines += [
            f"## {name}", "",
            f"{entry['rows']} rows of {entry['mean_tokens']:.0f} tokens ({entry['shared_tokens']} in every row); "
            f"medians of {entry['rounds']} interleaved rounds.", _engine(entry),
            *(["Peers: " + ", ".join(f"{peer} {at}" for peer, at in entry["peers"].items()) + "."]
              if entry["peers"] else []),
            "", "| contender | times as fast | raw scores apart | decisions changed |", "|---|---|---|---|",
            *(_row(contender, one) for contender, one in entry["contenders"].items()), "",
        ]  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")


def write_chart(result: dict, path: Path) -> None:
    """Writes bars of how many times as fast each contender is, one group for each judge, legible on dark and light."""
    parts, y = [], 0
    for judge, entry in result["judges"].items():
        y += ROW + 8
        parts.append(f'<text x="0" y="{y}" class="head">{escape(judge)}</text>')
        bars = {name: one["times_as_fast"] for name, one in entry["contenders"].items() if "times_as_fast" in one}
        most = max(bars.values(), default=1.0)
        for name, ratio in bars.items():
            y += ROW
            width = (WIDTH - NAME - 60) * ratio / most
            parts += [
                f'<text x="{NAME - 8}" y="{y}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{NAME}" y="{y - 13}" width="{width:.1f}" height="16" rx="2" '
                f'class="{"ours" if name in OURS else "peer"}"/>',
                f'<text x="{NAME + width + 6:.1f}" y="{y}">{ratio:.2f}</text>',
            ]
    said = "Times as fast as what most people write; Spark jobs against a pandas UDF"
    style = (
        "text{font:13px sans-serif;fill:#57606a}.head{font-weight:bold}.ours{fill:#2f81f7}.peer{fill:#8b949e}"
        "@media(prefers-color-scheme:dark){text{fill:#a8b1bb}}"
    )
    height = y + ROW + 12
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{said}">\n<style>{style}</style>\n'
        + "\n".join(parts) + f'\n<text x="0" y="{height - 8}">{said}.</text>\n</svg>\n',
        encoding="utf-8",
    )  # fmt: skip


def _engine(entry: dict) -> str:
    ratio, share = entry["engine_to_best_peer"], entry["share_of_matmul_peak"]
    if share is None:
        return "The engine did not run."
    peer = f"is {ratio} times as fast as the best peer ({entry['best_peer']})" if ratio else "had no peer that ran"
    unlike = [
        f" {name} is faster and changes {entry['contenders'][name]['decisions_changed']:.0%} of the decisions."
        for name in entry["faster_but_unlike"]
    ]
    limit = f"{share:.0%} of the fastest {entry['precision']} matrix product"
    return f"The engine {peer}.{''.join(unlike)} It reaches {limit} of the same run, tokens counted without padding."


def _row(name: str, one: dict) -> str:
    if "failed" in one:
        return f"| {name} | did not run: {one['failed'].replace('|', '/')} | | |"
    ratio = f"{one['times_as_fast']:.2f}" if "times_as_fast" in one else "no ratio"
    if "largest_difference" not in one:
        return f"| {name} | {ratio} | {'other weights' if one.get('other_weights') else 'nothing to hold against'} | |"
    return f"| {name} | {ratio} | {one['largest_difference']:.1g} | {one['decisions_changed']:.1%} |"
