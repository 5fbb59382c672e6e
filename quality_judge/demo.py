"""The data of the demo: a corpus of real text found on this machine, and the labels shipped in `conf/demo`.

`gather_corpus` reads what any Python environment has (package descriptions, docstrings, licences, code,
data, change logs) and, where there are, man pages, `/usr/share/doc`, translations and the legal notices of a Java
runtime, and cuts it into fragments. Dirt is kept on purpose. It knows nothing of judges and reads nothing
over the network; nothing it finds is shipped, it stays in the folder it is told to write to.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import os
import random
import re
import struct
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quality_judge.config import conf_folder
from quality_judge.errors import InputError

SHARES = {
    "readme": 0.20, "docstring": 0.20, "code": 0.13, "data": 0.11, "manual": 0.10,
    "licence": 0.09, "changelog": 0.09, "listing": 0.04, "translation": 0.04,
}  # fmt: skip
MAX_SHARE = 0.25
MIN_CHARACTERS, MAX_CHARACTERS = 40, 4_000
FRAGMENTS_PER_FILE = 6
READ_BYTES = 150_000
FILES = ("part-0.parquet", "part-1.parquet")
SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "text", "source", "lang")])

_CODE = re.compile(r"\.(py|pyi|pyx|css|js|c|h|hpp|cpp|cuh|html|svg|j2|sh|r|f90|cmake)")
_DATA = re.compile(r"\.(json|jsonl|csv|tsv|xml|yaml|yml|toml|arff|dectest|dat|pem|properties)")
_LICENCE = re.compile(r"(licen[cs]e|copying|copyright|notice|authors|third.?party)", re.I)
_CHANGELOG = re.compile(r"(change|changelog|changes|history|news|release)s?[._-]?", re.I)
_BREAK = re.compile(r"\n[ \t\r]*\n|\n(?=#{1,6} )")
_CJK = re.compile(r"[\u3400-\u9fff]")
_KANA_HANGUL = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")


def gather_corpus(output: Path, *, rows: int = 6000, seed: int = 0, folders: Sequence[Path] | None = None) -> int:
    """The number of rows written to two Parquet files in the folder `output`; deterministic given the machine.

    Columns, all strings: `id`, `text`, `source` (a key of SHARES, or `planted`), `lang` (`en`, `zh` or `other`, a guess
    by script). Fragments have 40 to 4,000 characters, no two alike; each kind fills its share, and what another
    kind lacks up to 25% of `rows`. Forty rows are planted, because real corpora have them and strings in Parquet
    cannot be invalid UTF-8: null, empty, blank, control characters, replacement characters, and one of 200 kB.
    `folders` replaces the folders of this machine. Raises InputError when fewer than 5/6 of `rows` are found,
    or when `output` holds anything else.
    """
    if rows < 200:
        raise InputError(f"rows={rows} is too few for a mix of {len(SHARES)} kinds; ask for at least 200")
    _refuse_foreign(output)
    planted = _planted()
    found = _found(source_folders() if folders is None else folders, cap=int(rows * MAX_SHARE), seed=seed)
    table = _mixed(found, rows - len(planted)) + planted
    if len(table) < rows * 5 // 6:
        counts = ", ".join(f"{kind} {len(texts)}" for kind, texts in found.items())
        raise InputError(
            f"found text for {len(table)} rows on this machine ({counts}, planted {len(planted)}); {rows} rows need at "
            f"least {rows * 5 // 6}. Ask for fewer rows, or give the demo a corpus of your own"
        )
    random.Random(f"{seed} order").shuffle(table)  # noqa: S311 - a fixed order, no secret
    _write(table, output)
    return len(table)


def demo_labels() -> list[Path]:
    """The label files of the demo, `conf/demo/labels.*.jsonl`, in order of name."""
    return sorted((conf_folder() / "demo").glob("labels.*.jsonl"))


def source_folders() -> list[Path]:
    """The folders of this machine that are read: site-packages, the standard library, and what the system has."""
    paths = sysconfig.get_paths()
    java = Path(os.environ["JAVA_HOME"]) / "legal" if os.environ.get("JAVA_HOME") else Path("/usr/lib/jvm")
    system = [Path("/usr/share") / name for name in ("doc", "common-licenses", "man", "locale")]
    return [Path(paths["purelib"]), Path(paths["stdlib"]), *system, java]


def _found(folders: Iterable[Path], *, cap: int, seed: int) -> dict[str, list[str]]:
    """For each kind up to `cap` fragments, taken round robin from its groups of files, no two alike."""
    files: dict[str, dict[str, list[Path]]] = {kind: {} for kind in SHARES}
    for path, group in _files(folders):
        for kind in _kinds(path):
            files[kind].setdefault(group, []).append(path)
    seen: set[str] = set()
    found: dict[str, list[str]] = {}
    for kind, groups in files.items():
        fragments = (text for path in _round_robin(groups, f"{seed} {kind}") for text in _sample(kind, path))
        found[kind] = list(islice(_unseen(fragments, seen), cap))
    return found


def _unseen(texts: Iterable[str], seen: set[str]) -> Iterator[str]:
    for text in texts:
        if text not in seen:
            seen.add(text)
            yield text


def _files(folders: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Every file with its group: the top-level folder it is in, and its suffix. Sorted; links are not followed."""
    for root in folders:
        for folder, names, files in os.walk(root):
            names[:] = sorted(name for name in names if name not in ("__pycache__", "site-packages", "quality_judge"))
            top = os.path.relpath(folder, root).split(os.sep)[0]
            for name in sorted(files):
                yield Path(folder, name), f"{root.name}/{top}/{os.path.splitext(name)[1]}"


def _kinds(path: Path) -> tuple[str, ...]:
    """The kinds of text that `path` may hold, by its name and folder alone."""
    name, suffix = path.name.removesuffix(".gz"), Path(path.name.removesuffix(".gz")).suffix.lower()
    if "quality_judge" in path.parent.name:
        return ()
    if path.parent.name.endswith(".dist-info") and name in ("METADATA", "RECORD"):
        return ("listing", "readme") if name == "METADATA" else ("listing",)
    if suffix in (".mo", ".po"):
        return ("translation",)
    if "/man/" in path.as_posix() and re.fullmatch(r"\.[1-8]\w*", suffix):
        return ("manual",)
    if _CODE.fullmatch(suffix):
        return ("docstring", "code") if suffix == ".py" else ("code",)
    if _DATA.fullmatch(suffix):
        return ("data",)
    if suffix not in ("", ".md", ".rst", ".txt", ".debian"):
        return ()
    if _LICENCE.match(name) or path.parent.name in ("licenses", "common-licenses") or "legal" in path.parts:
        return ("licence",)
    if _CHANGELOG.match(name):
        return ("changelog",)
    return () if not suffix else ("readme",)


def _round_robin(groups: dict[str, list[Path]], seed: str) -> Iterator[Path]:
    """The files of all groups, one of each in turn, so that no large package fills a kind."""
    rng = random.Random(seed)  # noqa: S311 - a fixed order, no secret
    for group in groups.values():
        rng.shuffle(group)
    ranked = [(rank, path) for group in groups.values() for rank, path in enumerate(group)]
    rng.shuffle(ranked)
    return (path for _, path in sorted(ranked, key=lambda pair: pair[0]))


def _sample(kind: str, path: Path) -> list[str]:
    """A few fragments of one file; none when it cannot be read. The same bytes give the same fragments."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            raw = stream.read(READ_BYTES)
    except (OSError, EOFError):
        return []
    if b"\0" in raw[:1000] and kind != "translation":
        return []
    rng = random.Random(hashlib.sha256(raw).digest())  # noqa: S311 - a fixed choice, no secret
    pieces = [piece for piece in _READERS[kind](raw, rng) if len(piece) >= MIN_CHARACTERS]
    return rng.sample(pieces, min(len(pieces), FRAGMENTS_PER_FILE))


def _fragments(text: str, rng: random.Random) -> Iterator[str]:
    """Groups of paragraphs of very different sizes; a paragraph over 4,000 characters is cut there, as crawlers do."""
    group: list[str] = []
    target = _target(rng)
    for paragraph in _BREAK.split(text):
        group.append(paragraph)
        size = sum(map(len, group))
        if size >= target or (size > target // 2 and paragraph.startswith("#")):
            yield "\n\n".join(group).strip()[: min(MAX_CHARACTERS, max(4 * target, 400))]
            group, target = [], _target(rng)
    yield "\n\n".join(group).strip()[:MAX_CHARACTERS]


def _target(rng: random.Random) -> int:
    return int(60 * 2 ** rng.uniform(0, 5.5))


def _prose(raw: bytes, rng: random.Random) -> Iterator[str]:
    return _fragments(str(raw, "utf-8", "replace"), rng)


def _description(raw: bytes, rng: random.Random) -> Iterator[str]:
    """A README, or the description in METADATA: what follows the headers."""
    text = str(raw, "utf-8", "replace")
    return _fragments(text.partition("\n\n")[2] if text.startswith("Metadata-Version:") else text, rng)


def _lines(raw: bytes, rng: random.Random) -> Iterator[str]:
    """Runs of lines: what is left of METADATA's headers and of RECORD when a crawler takes them for text."""
    head = str(raw, "utf-8", "replace")
    lines = (head.partition("\n\n")[0] if head.startswith("Metadata-Version:") else head).splitlines()
    while lines:
        size = rng.randint(2, 20)
        yield "\n".join(lines[:size])[:MAX_CHARACTERS]
        lines = lines[size:]


def _docstrings(raw: bytes, rng: random.Random) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(raw)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield (ast.get_docstring(node) or "")[:MAX_CHARACTERS]


def _manual(raw: bytes, rng: random.Random) -> Iterator[str]:
    """A man page with most of its roff taken away; some is left, as in real corpora."""
    text = re.sub(r"(?m)^[.']\\\".*\n?", "", str(raw, "utf-8", "replace"))
    text = re.sub(r"(?m)^[.'](SH|SS|Sh|Ss) +(.*)$", r"\n\n\2\n", text)
    text = re.sub(r"(?m)^[.'](PP|TP|IP|LP|P|sp|Pp|It)\b *(.*)$", r"\n\2", text)
    text = re.sub(r"\\f[A-Z]|\\&", "", re.sub(r"(?m)^[.'][A-Za-z]{1,2} +", "", text)).replace("\\-", "-")
    return _fragments(re.sub(r"\n{3,}", "\n\n", text), rng)


def _translations(raw: bytes, rng: random.Random) -> Iterator[str]:
    """Messages of a .mo catalogue, a few at a time, or paragraphs of a .po file."""
    if raw[:4] != b"\xde\x12\x04\x95":
        yield from _fragments(str(raw, "utf-8", "replace"), rng)
        return
    _, _, count, _, start = struct.unpack_from("<5I", raw)
    messages = []
    for index in range(1, min(count, (len(raw) - start) // 8)):
        length, offset = struct.unpack_from("<2I", raw, start + 8 * index)
        if offset + length <= len(raw):
            messages.append(str(raw[offset : offset + length].replace(b"\0", b"\n"), "utf-8", "replace"))
    for first in range(0, len(messages), 6):
        yield "\n".join(messages[first : first + 6])[:MAX_CHARACTERS]


_READERS: dict[str, Callable[[bytes, random.Random], Iterator[str]]] = {
    **dict.fromkeys(("code", "data", "licence", "changelog"), _prose),
    "readme": _description,
    "docstring": _docstrings,
    "manual": _manual,
    "listing": _lines,
    "translation": _translations,
}


def _mixed(found: dict[str, list[str]], rows: int) -> list[tuple[str, str | None]]:
    """At most `rows` pairs (kind, text): each kind's share first, then what is still missing, in proportion."""
    taken = {kind: min(len(found[kind]), round(share * rows)) for kind, share in SHARES.items()}
    missing = rows - sum(taken.values())
    spare = {kind: len(found[kind]) - taken[kind] for kind in SHARES}
    total = sum(spare.values())
    for kind in SHARES if missing > 0 else ():
        taken[kind] += min(spare[kind], -(-missing * spare[kind] // max(total, 1)))
    pairs: list[tuple[str, str | None]] = []
    for kind, count in taken.items():
        pairs += [(kind, text) for text in found[kind][:count]]
    return pairs[:rows]


def _planted() -> list[tuple[str, str | None]]:
    """Forty rows that break careless readers."""
    texts = [None, "", "   \n\t ", "\x00\x01\x02\x1b[31m\x07" * 12, "\ufffd" * 80, "\u200b\u202e\ufeff" * 20, "x", "."]
    long = "word " * 40_000
    return [("planted", text) for text in [*texts * 5][:39]] + [("planted", long)]


def _language(text: str | None) -> str:
    """`zh` for Han without kana or hangul, `en` for nearly pure ASCII, else `other`: a guess by script alone."""
    head = (text or "")[:1000]
    han = len(_CJK.findall(head))
    if han * 8 > len(head) and not _KANA_HANGUL.search(head):
        return "zh"
    return "en" if sum(map(str.isascii, head)) >= 0.97 * len(head) else "other"


def _refuse_foreign(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; give a folder that is empty or does not exist")
    foreign = sorted(entry.name for entry in output.iterdir() if entry.name not in FILES) if output.is_dir() else []
    if foreign:
        raise InputError(f"{output} holds {foreign[0]!r}; give a folder that is empty or does not exist")


def _write(table: Sequence[tuple[str, str | None]], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    half = (len(table) + 1) // 2
    for name, start in zip(FILES, (0, half), strict=True):
        part = table[start : start + half]
        numbered = enumerate(part, start)
        rows = [(f"row-{number:06d}", text, kind, _language(text)) for number, (kind, text) in numbered]
        beside = output.parent / f".{output.name}-{name}.partial"
        pq.write_table(pa.table([list(column) for column in zip(*rows, strict=True)], schema=SCHEMA), beside)
        beside.replace(output / name)
