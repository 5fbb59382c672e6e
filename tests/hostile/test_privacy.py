"""30 canaries and 20 secrets go through every programme on every failing path; none comes out anywhere but in rows.

`leak_runs.py` runs them all; here everything that was printed or written is read: both streams, Spark's event log and
work folder, manifests, profiles, reports, metrics, cards and judges. Scored tables and the file of rows for labels
hold rows on purpose and are left out.
"""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
CANARIES = [f"zephyr {number:02d} quillfin" for number in range(30)]
SECRETS = [
    *("AKIA" + f"IOSFODNN7EXAMPL{n}" for n in range(3)), *("hf_" + f"aBcDeFgHiJkLmNoPqRsTuVw{n}" for n in range(3)),
    *("ghp_" + f"{n}x" * 18 for n in range(3)), "xoxb-" + "123456789012-abcdefABCDEF", "sk-" + "proj-abcdefghijkl1234",
    "AIza" + "SyA1234567890abcdefghijklmnopqrstuv", "glpat-" + "abcdefghij0123456789", "jane.doe@quillfin.example",
    "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF123", "npm_" + "abcdefghijklmnopqrstuvwx",
    "wJalrXUtnFEMI" + "K7MDENGbPxRfiCYEXAMPLEKEY", "hunter2" + "correcthorse", "zzPrivate" + "KeyBody0123456789",
    "dckr_pat_" + "abcdefghijklmnopqrst",
]  # fmt: skip
GOOD = ["water", "boils", "mountain", "air", "train", "question", "library", "river"]
BAD = ["click", "free", "price", "casino", "login", "cart", "spins", "deal"]
EXPECTED_FAILURES = 25


def spoken(dice, number, *, good=None):
    """A row with a canary and a secret in it."""
    good = number % 2 == 0 if good is None else good
    words = " ".join(dice.choices(GOOD if good else BAD, k=dice.randrange(5, 20)))
    return f"{words} {CANARIES[number % 30]} password={SECRETS[number % 20]} {words[:20]}"


def labels(dice, count, **more):
    return "".join(
        json.dumps({"prompt": "", "completion": spoken(dice, n), "label": n % 2 == 0, "annotator": f"a{n % 3}", **more})
        + "\n"
        for n in range(count)
    )


def plant(place):
    """Everything the programmes are given."""
    dice, folder = random.Random(8), place / "planted"
    (folder / "headers").mkdir(parents=True)
    (folder / "mixed").mkdir()
    odd = [None, "", "\u200b", "\x00\x01" * 20, "[SEP]" + CANARIES[0], "word " * 4000 + CANARIES[1], "é" * 9]
    texts = [*odd, *(spoken(dice, number) for number in range(60))]
    rows = [
        {"id": n, "text": text, "prompt": f"{CANARIES[n % 30]}?" if n % 3 else None, "number": n, "source": "ab"[n % 2],
         "note": f"{SECRETS[n % 20]} {CANARIES[(n + 7) % 30]}"}
        for n, text in enumerate(texts)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "rows.parquet", row_group_size=20)
    content = (folder / "rows.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(content[: len(content) // 2])
    pq.write_table(table.append_column("quality_score", pa.array([0.5] * len(table))), folder / "taken.parquet")
    pq.write_table(table, folder / "mixed" / "a.parquet")
    pq.write_table(table.set_column(1, "text", pa.array(range(len(table)))), folder / "mixed" / "b.parquet")
    lines = [spoken(dice, number) for number in range(30)]
    for name in ("lines.txt", "lines.parquet"):
        (folder / name).write_text("\n".join(lines))
    broken = [json.dumps({"text": line}) for line in lines]
    broken[3:9] = [
        broken[3][:-5],
        lines[4],
        f"[{broken[5]}]",
        '{"text": {"a": "' + lines[6] + '"}}',
        "{",
        broken[8] * 2,
    ]
    (folder / "broken.json").write_text("\n".join(broken))
    quoted = ['"' + line.replace('"', "'") + '"' for line in lines]
    (folder / "no-header.csv").write_text("\n".join(f"{line},{n},{line}" for n, line in enumerate(quoted)))
    (folder / "ragged.csv").write_text("text,id\n" + "\n".join(line + ",1" * (n % 4) for n, line in enumerate(quoted)))
    (folder / "headers" / "a.csv").write_text(f"text,id\n{quoted[0]},1\n")
    (folder / "headers" / "b.csv").write_text(f"{quoted[1]},text\n{quoted[2]},1\n")
    good = labels(dice, 120)
    (folder / "labels-good.jsonl").write_text(good)
    faults = [lines[0], json.dumps({"text": lines[1], "label": lines[2]}), json.dumps({lines[3]: lines[4]}),
              json.dumps({"text": 3, "label": lines[5]}), good.splitlines()[0][:-9], json.dumps([lines[6]]),
              json.dumps({"text": lines[7], "labels": {lines[8]: lines[9]}}),
              json.dumps({"text": "\u200b", "label": 1}),
              json.dumps({"chosen": lines[10], "rejected": lines[10]}), json.dumps({"completions": lines[11]}),
              json.dumps({"text": lines[12], "label": 1, "weight": lines[13]}),
              json.dumps({"text": lines[12], "label": 1, "id": [lines[14]], "annotator": {"a": lines[1]}})]  # fmt: skip
    (folder / "labels-broken.jsonl").write_text("\n".join(faults))
    both = [json.dumps({"completion": line, "label": label}) for line in lines for label in (True, False)]
    (folder / "labels-contradict.jsonl").write_text("\n".join(both))
    (folder / "labels-one.jsonl").write_text("\n".join(json.dumps({"text": t, "label": True}) for t in lines))
    (folder / "labels-few.jsonl").write_text(labels(dice, 4))
    (folder / "sliced.yaml").write_text(
        "name: sliced\nkeep_at: 0.5\nslices: {column: source, values: {a: {keep_at: 0.9}}}\n"
    )
    (folder / "strict.yaml").write_text(STRICT_SUITE)
    (place / "secret-path").write_text(f"s3a://{SECRETS[0]}:{SECRETS[16]}@bucket/rows")
    (place / "secret-setting").write_text(f"hub_token={SECRETS[3]}")


STRICT_SUITE = """
name: strict
expectations:
  - type: expect_column_values_to_be_in_set
    kwargs: {column: text, value_set: [nothing]}
  - type: expect_column_values_to_match_regex
    kwargs: {column: prompt, regex: "^nothing$"}
  - type: expect_column_values_to_be_unique
    kwargs: {column: note}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory, sound_judge):
    """(folder, exit codes, all that was printed) after every programme was run on everything."""
    import shutil

    place = tmp_path_factory.mktemp("leaks")
    plant(place)
    shutil.copytree(sound_judge("bert")[0], place / "judge")
    drifted(place)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1", "AWS_SECRET_ACCESS_KEY": SECRETS[16],
        "HF_TOKEN": SECRETS[4], "COLUMNS": "200",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/hostile/leak_runs.py"), str(place)], capture_output=True, text=True,
        timeout=580, env=environment,
    )  # fmt: skip
    assert (place / "codes.json").exists(), done.stderr[-3000:]
    return place, json.loads((place / "codes.json").read_text()), done.stdout + done.stderr


def drifted(place):
    """A judge that only executors find out about: its golden rows score otherwise, its hashes fit."""
    from quality_judge.judge import GOLDEN_FILE, load_judge, save_judge

    judge = load_judge(place / "judge")
    content = json.loads(judge.path(GOLDEN_FILE).read_text())
    content["raw"] = {name: [value + 1 for value in row] for name, row in content["raw"].items()}
    files = {name: judge.path(name) for name in judge.spec.files} | {GOLDEN_FILE: json.dumps(content).encode()}
    stack = judge.spec.stack.model_copy(update={"bias": 0.2})  # another fingerprint: no worker has it loaded
    save_judge(place / "drifted", judge.spec.model_copy(update={"stack": stack}), files)


def found_in(text, needles):
    """Which of `needles` stand in `text`, also with JSON, HTML or URL escapes taken back, or spaces changed."""
    flat = re.sub(r"[\s_+-]+|%20|&nbsp;", " ", text)
    return [needle for needle in needles if needle in text or re.sub(r"[\s_+-]+", " ", needle) in flat]


def written(place):
    """Every file that came about and is no table of rows."""
    for folder in ("out", "events", "work"):
        for path in (place / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".parquet", ".crc") and path.name != "sampled-rows.jsonl":
                yield path


@pytest.mark.slow
@pytest.mark.spark
def test_each_run_ends_as_it_should_and_no_exception_gets_through(ran):
    _, codes, said = ran
    assert {name: code for name, code in codes.items() if code not in (0, 1, 2)} == {}, said[-4000:]
    assert codes["score"] == codes["filter"] == codes["train"] == codes["report"] == 0, said[-4000:]
    assert sum(code != 0 for code in codes.values()) >= EXPECTED_FAILURES


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.parametrize("needles", [CANARIES, SECRETS], ids=["canaries", "secrets"])
def test_nothing_printed_holds_row_text_or_a_secret(ran, needles):
    assert found_in(ran[2], needles) == []


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.parametrize("needles", [CANARIES, SECRETS], ids=["canaries", "secrets"])
def test_nothing_written_beside_the_tables_holds_row_text_or_a_secret(ran, needles):
    paths = list(written(ran[0]))
    kinds = {path.name for path in paths}
    assert {"_quality_manifest.json", "_quality_profile.json", "report.html", "v1.json", "card.md", "metrics.json",
            "judge.json", "head.safetensors", "r.json"} <= kinds  # fmt: skip
    assert any(path.parts[-2].startswith("eventlog") or "events" in path.parts for path in paths)
    leaks = {str(path): found for path in paths if (found := found_in(path.read_bytes().decode("latin-1"), needles))}
    assert leaks == {}


@pytest.mark.slow
@pytest.mark.spark
def test_the_search_itself_finds_what_is_there(ran):
    """The rows did carry them: the tables and the file of rows for labels hold every canary."""
    rows = pq.read_table(ran[0] / "out" / "scored").to_pylist()
    text = json.dumps(rows, default=str)
    assert found_in(text, CANARIES) == CANARIES
    assert len(found_in(text, SECRETS)) == 20
    assert found_in((ran[0] / "out" / "sampled-rows.jsonl").read_text(), CANARIES)
