"""Judges pushed and pulled come back whole and the same; no version is overwritten; a tag moves only to one not worse.

The file systems are real: this machine's disk, and fsspec's memory. The hub itself cannot be reached here; its client
talks to `small_hub`, which speaks the hub's protocol over HTTP.
"""

import json
import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quality_judge.cli import app
from quality_judge.errors import CheckFailed, InputError, JudgeError
from quality_judge.judge import (
    JUDGE_FILE,
    METRICS_FILE,
    SIGNATURE_FILE,
    checksum_of,
    load_judge,
    save_judge,
    sha256_of,
    spelled,
)
from quality_judge.promotion import contest
from quality_judge.registry import FileStore, open_store, parse_place, pull_judge, push_judge, version_of


@pytest.fixture
def saved(tmp_path, make_spec, judge_files):
    """A function from a name, a ROC AUC and the hash of the labels it was measured on to a saved judge."""

    def save(name, *, roc_auc=0.8, measured_on="one", bias=0.25):
        metrics = {"test": {"n": 100, "roc_auc": roc_auc}, "labels": {"held_out_sha256": measured_on}}
        spec = make_spec()
        spec = spec.model_copy(update={"stack": spec.stack.model_copy(update={"bias": bias})})
        return save_judge(tmp_path / name, spec, {**judge_files, METRICS_FILE: json.dumps(metrics).encode()})

    return save


@pytest.fixture(params=["path", "file", "memory"])
def place(request, tmp_path):
    pytest.importorskip("fsspec")
    return {
        "path": str(tmp_path / "模型" / "quality"),
        "file": (tmp_path / "models" / "quality").as_uri(),
        "memory": f"memory://{uuid.uuid4().hex}/quality",
    }[request.param]


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_what_is_pulled_is_what_was_pushed_to_the_last_byte(saved, place, tmp_path):
    judge = saved("mine")
    said = push_judge(judge.folder, f"{place}@v1")
    assert open_store(place).tags() == {"latest": said["version"], "v1": said["version"]}
    for asked in ("", "@latest", "@v1", f"@{said['version']}"):
        pulled = pull_judge(f"{place}{asked}", tmp_path / f"pulled{asked}")
        assert files(pulled.folder) == files(judge.folder)


def test_two_judges_with_the_same_scores_are_two_versions_and_pushing_one_again_changes_nothing(saved, place):
    first, second = saved("a", roc_auc=0.8), saved("b", roc_auc=0.9)
    assert first.fingerprint == second.fingerprint
    versions = [push_judge(judge.folder, place)["version"] for judge in (first, second, first)]
    assert versions == [version_of(first), version_of(second), version_of(first)]
    assert len(set(versions)) == 2
    assert open_store(place).tags() == {"latest": versions[0]}


def sign(judge, signer="1"):
    """A signature as `quality-judge sign` leaves it; nobody here checks whose."""
    said = {"judge_sha256": sha256_of(judge.path(JUDGE_FILE)), "public_key": signer * 64, "signature": "0" * 128}
    judge.path(SIGNATURE_FILE).write_text(spelled(said | {"checksum": checksum_of(said)}))


def test_a_signature_made_or_renewed_after_the_push_comes_with_the_next_one_and_is_never_lost(saved, place, tmp_path):
    judge = saved("a")
    version = push_judge(judge.folder, place)["version"]
    for signer in "12":
        sign(judge, signer)
        assert push_judge(judge.folder, place)["version"] == version
        assert files(pull_judge(place, tmp_path / signer).folder) == files(judge.folder)
    signed = files(judge.folder)
    judge.path(SIGNATURE_FILE).unlink()
    push_judge(judge.folder, place)
    assert files(pull_judge(place, tmp_path / "kept").folder) == signed


def test_a_push_after_which_another_signature_lies_there_fails(saved, tmp_path, monkeypatch):
    judge, place = saved("a"), str(tmp_path / "models")
    push_judge(judge.folder, place)
    sign(judge)
    monkeypatch.setattr(FileStore, "put", lambda self, judge: version_of(judge))
    with pytest.raises(CheckFailed, match="push again"):
        push_judge(judge.folder, place)


def test_a_tag_that_names_another_version_is_not_moved_by_pushing(saved, place):
    push_judge(saved("a").folder, f"{place}@production")
    before = open_store(place).tags()
    with pytest.raises(InputError, match="quality-judge promote"):
        push_judge(saved("b", bias=0.5).folder, f"{place}@production")
    assert open_store(place).tags() == before


def test_a_version_without_judge_json_is_none_and_the_next_push_completes_it(saved, tmp_path):
    judge, place = saved("a"), str(tmp_path / "models")
    push_judge(judge.folder, place)
    (tmp_path / "models" / "versions" / version_of(judge) / JUDGE_FILE).unlink()
    assert not FileStore(place).holds(version_of(judge))
    with pytest.raises(JudgeError, match="not a whole judge"):
        pull_judge(place, tmp_path / "pulled")
    push_judge(judge.folder, place)
    assert pull_judge(place, tmp_path / "pulled").fingerprint == judge.fingerprint


def test_a_version_with_a_damaged_file_is_made_whole_by_the_next_push(saved, tmp_path):
    judge, place = saved("a"), str(tmp_path / "models")
    folder = tmp_path / "models" / "versions" / push_judge(judge.folder, place)["version"]
    (folder / "card.md").write_text("cut of")
    push_judge(judge.folder, place)
    assert files(folder) == files(judge.folder)


@pytest.mark.parametrize("fault", ["changed", "extra", "exchanged"])
def test_a_version_that_was_tampered_with_is_refused_and_leaves_nothing(saved, tmp_path, fault):
    judge, place = saved("a"), str(tmp_path / "models")
    folder = tmp_path / "models" / "versions" / push_judge(judge.folder, place)["version"]
    if fault == "changed":
        (folder / "card.md").write_text("another")
    elif fault == "extra":
        (folder / "run.py").write_text("print(1)")
    else:
        for name, content in files(saved("b", bias=0.5).folder).items():
            (folder / name).write_bytes(content)
    with pytest.raises(JudgeError):
        pull_judge(place, tmp_path / "pulled" / "here")
    assert list((tmp_path / "pulled").iterdir()) == []


def test_what_stands_at_the_destination_is_never_overwritten(saved, tmp_path):
    push_judge(saved("a").folder, str(tmp_path / "models"))
    with pytest.raises(InputError, match="never overwritten"):
        pull_judge(str(tmp_path / "models"), tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/models/x@-up", "names no place"), ("/models/x@", "names no place"), ("@v1", "names no place"),
        ("hf://only-a-name@v1", "hf://org/name@tag"), ("nosuch://bucket/x", "no file system nosuch://"),
        ("/nowhere/at/all@v1", "no tag or version 'v1'; its tags: none; push a judge first"),
    ],
)  # fmt: skip
def test_a_place_that_is_none_is_told_with_what_to_write(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        pull_judge(text, tmp_path / "pulled")


def test_a_tag_is_parsed_from_the_last_part_alone():
    assert parse_place("s3://user@bucket/a/b@v1") == parse_place("s3://user@bucket/a/b@v1/")
    assert parse_place("s3://user@bucket/a/b").tag is None


def test_without_a_network_the_hub_says_what_to_do_and_nothing_is_left(saved, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    judge = saved("a")
    for call in (
        lambda: push_judge(judge.folder, "hf://org/name@v1"),
        lambda: pull_judge("hf://org/name", tmp_path / "p"),
    ):
        with pytest.raises(InputError, match=r"hf://org/name cannot be read.*is there a network"):
            call()
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(("candidate", "holds"), [(0.9, True), (0.795, True), (0.78, False)])
def test_a_judge_may_take_the_place_of_one_it_is_not_worse_than_by_a_hundredth(saved, candidate, holds):
    assert contest(saved("a", roc_auc=candidate), saved("b", roc_auc=0.8)).holds is holds


def test_judges_measured_on_different_labels_are_not_compared(saved):
    with pytest.raises(InputError, match="--labels"):
        contest(saved("a", measured_on="one"), saved("b", measured_on="two"))


def test_promoting_refuses_a_worse_judge_unless_told_and_exits_1(saved, tmp_path):
    good, worse, place = saved("a", roc_auc=0.9), saved("b", roc_auc=0.7, bias=0.5), str(tmp_path / "models")
    runner = CliRunner()
    for arguments, code, tagged in (
        (["push", good.folder, f"{place}@one"], 0, None),
        (["promote", f"{place}@one", "--to", "production"], 0, good),
        (["push", worse.folder, f"{place}@two"], 0, good),
        (["promote", f"{place}@two", "--to", "production"], 1, good),
        (["promote", f"{place}@two", "--to", "production", "--anyway"], 0, worse),
        (["promote", f"{place}@one", "--to", "production"], 0, good),
    ):
        done = runner.invoke(app, arguments)
        assert done.exit_code == code, done.output
        assert json.loads(done.stdout.splitlines()[-1])["ok"] is (code == 0)
        assert FileStore(place).tags().get("production") == (tagged and version_of(load_judge(tagged.folder)))


@pytest.fixture(params=["", "[]", '{"version": 3}', '{"version": "../up"}'])
def damaged(request, saved, tmp_path):
    """A place with two judges, `good` and `worse`, whose tag production is damaged."""
    place = str(tmp_path / "models")
    for name, roc_auc, bias in (("good", 0.9, 0.25), ("worse", 0.7, 0.5)):
        push_judge(saved(name, roc_auc=roc_auc, bias=bias).folder, f"{place}@{name}")
    (tmp_path / "models" / "tags" / "production.json").write_text(request.param)
    return place


def test_a_damaged_tag_keeps_no_other_tag_or_version_from_being_read_or_pushed(damaged, saved, tmp_path):
    worse = load_judge(tmp_path / "worse")
    for number, asked in enumerate(("@worse", f"@{version_of(worse)}", "@latest", "")):
        assert pull_judge(f"{damaged}{asked}", tmp_path / f"pulled-{number}").spec.checksum == worse.spec.checksum
    push_judge(saved("third", bias=0.75).folder, f"{damaged}@third")
    done = CliRunner().invoke(app, ["tags", damaged])
    assert json.loads(done.stdout)["tags"] == {**open_store(damaged).tags(), "production": None}
    assert "production cannot be read; remove it, or promote a version" in done.stderr
    for asked in (lambda: pull_judge(f"{damaged}@production", tmp_path / "p"),
                  lambda: push_judge(worse.folder, f"{damaged}@production")):  # fmt: skip
        with pytest.raises(InputError, match=r"production\.json .*; remove it, or promote a version"):
            asked()


def test_a_damaged_tag_is_moved_by_promoting_anyway_and_by_nothing_less(damaged):
    for more, code, tagged in (([], 1, None), (["--anyway"], 0, open_store(damaged).tag("worse"))):
        done = CliRunner().invoke(app, ["promote", f"{damaged}@worse", "--to", "production", *more])
        assert (done.exit_code, open_store(damaged).tags()["production"]) == (code, tagged)
        assert json.loads(done.stdout.splitlines()[-1])["ok"] is (code == 0)
        assert "nothing to compare this judge with" in done.stderr


def test_a_judge_that_can_no_longer_be_read_is_replaced_by_promoting_anyway(saved, tmp_path):
    place = str(tmp_path / "models")
    version = push_judge(saved("a").folder, f"{place}@production")["version"]
    push_judge(saved("b", bias=0.5).folder, f"{place}@two")
    (tmp_path / "models" / "versions" / version / JUDGE_FILE).unlink()
    for more, code in (([], 1), (["--anyway"], 0)):
        assert CliRunner().invoke(app, ["promote", f"{place}@two", "--to", "production", *more]).exit_code == code


@pytest.mark.parametrize("to", ["a/b", "v1/", "-x", ""])
def test_a_name_that_is_no_tag_is_not_promoted_to(saved, tmp_path, to):
    place = str(tmp_path / "models")
    push_judge(saved("a").folder, place)
    done = CliRunner().invoke(app, ["promote", place, f"--to={to}"])
    assert isinstance(done.exception, InputError)
    assert set(open_store(place).tags()) == {"latest"}


@pytest.fixture
def hub(small_hub):
    """A function from words to (exit code, last line parsed) of the command line, against the small hub it holds."""

    def call(*words):
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.stdout, done.exception
        return done.exit_code, json.loads(done.stdout.splitlines()[-1])

    call.server = small_hub
    return call


def test_a_repository_of_the_hub_keeps_each_judge_as_a_commit_and_gives_back_what_a_tag_names(hub, saved, tmp_path):
    first, second = saved("a", roc_auc=0.9), saved("b", roc_auc=0.7, bias=0.5)
    versions = [
        hub("push", judge.folder, f"hf://org/mine@v{n}")[1]["version"] for n, judge in enumerate((first, second))
    ]
    assert hub("promote", "hf://org/mine@v0", "--to", "production")[0] == 0
    assert hub("promote", "hf://org/mine@v1", "--to", "production")[0] == 1
    assert hub.server.tags == {"v0": versions[0], "v1": versions[1], "production": versions[0]}
    sign(second)
    versions.append(hub("push", second.folder, "hf://org/mine")[1]["version"])
    hub.server.commits[hub.server.head]["run.py"] = b"print(1)"  # whatever else lies in the repository stays there
    assert hub("pull", "hf://org/mine@production", tmp_path / "one")[0] == 0
    assert hub("pull", "hf://org/mine", tmp_path / "two")[0] == 0
    assert [files(tmp_path / name) for name in ("one", "two")] == [files(judge.folder) for judge in (first, second)]
    fetched = [line for line in hub.server.requests if "/resolve/" in line]
    assert fetched
    assert all(any(version in line for version in versions) for line in fetched)  # by commit, never by a moving name


def test_a_tag_of_the_hub_that_cannot_be_moved_is_put_back_and_that_is_said(hub, saved):
    versions = [
        hub("push", saved(name, bias=bias).folder, f"hf://org/mine@{name}")[1]["version"]
        for name, bias in (("a", 0.25), ("b", 0.5))
    ]
    assert hub("promote", "hf://org/mine@a", "--to", "production")[0] == 0
    hub.server.untaggable.add(versions[1])
    with pytest.raises(InputError, match=rf"could not be moved to {versions[1]}.*it names {versions[0]} now"):
        open_store("hf://org/mine").set_tag("production", versions[1])
    assert hub.server.tags["production"] == versions[0]
    hub.server.untaggable.update(versions)
    with pytest.raises(InputError, match=rf"may be gone: quality-judge promote hf://org/mine@{versions[0]} --to prod"):
        open_store("hf://org/mine").set_tag("production", versions[1])


def test_an_older_commit_of_the_hub_is_not_promoted_to_latest_which_is_the_head(hub, saved):
    for name, bias in (("a", 0.25), ("b", 0.5)):
        hub("push", saved(name, bias=bias).folder, f"hf://org/mine@{name}")
    done = CliRunner().invoke(app, ["promote", "hf://org/mine@a", "--to", "latest"])
    assert "push the judge again" in str(done.exception)
    assert done.stdout == ""
    assert hub("promote", "hf://org/mine@b", "--to", "latest")[0] == 0
