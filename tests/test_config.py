"""Configuration files: every fault is named at once, and nothing in a file can do more than set a value."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality_judge.config import JudgeConfig, conf_folder, load_judge_config, override, parse, read_yaml
from quality_judge.errors import ConfigError

GOOD = "name: helpful\nbase: some/base\n"


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "judge.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_small_file_takes_every_default(written):
    config = load_judge_config(written(GOOD))
    assert config == JudgeConfig(name="helpful", base="some/base")
    assert config.train.seed == 0


def test_all_faults_of_a_file_are_named_at_once_with_the_nearest_key(written):
    with pytest.raises(ConfigError) as raised:
        load_judge_config(written(GOOD + "max_token: 9\ncut: middle\ntrain: {epoch: 2, beta: 0}\n"))
    message = str(raised.value)
    assert "4 fault(s)" in message
    assert "did you mean 'max_tokens'" in message
    assert "did you mean 'epochs'" in message
    assert "cut: " in message
    assert "train.beta: " in message


@pytest.mark.parametrize(
    "text",
    [
        "", "- a\n- b\n", "just words", "1: a\n", "name: [\n", b"\xff\xfe\x00", "name: a\0b", "a: &x 1\nb: *x\n",
        "name: !!python/object/apply:os.system ['true']\n", "name: !!binary aGVsbG8=\n", "name: !!str 12\n",
        "name: !mine 1\n",
        "name: a\nname: b\n", "train: {epochs: 1, epochs: 2}\n", "? [a]\n: 1\n", "a: " + "[" * 3000 + "]" * 3000,
        "a: " + "[" * 30 + "]" * 30, "a: " + "x" * 1_000_001, "<<: {name: a}\n",
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_what_is_no_plain_mapping_is_refused(written, text):
    with pytest.raises(ConfigError):
        read_yaml(written(text))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ConfigError):
            read_yaml(path)


@pytest.mark.parametrize(
    "value", ["2024-01-01", ".nan", ".inf", "1.5", "[1]", "{a: 1}", "null", "''", "'a b'", "../up"]
)
def test_a_name_of_another_type_or_spelling_is_a_fault_not_a_crash(written, value):
    with pytest.raises(ConfigError, match="name"):
        load_judge_config(written(f"name: {value}\nbase: b\n"))


@pytest.mark.parametrize("value", ["0.5", "1", ".nan", ".inf", "-1"])
def test_a_target_precision_outside_its_range_is_refused(written, value):
    with pytest.raises(ConfigError, match="target_precision"):
        load_judge_config(written(GOOD + f"target_precision: {value}\n"))


def test_a_file_of_very_many_keys_is_refused_in_seconds(written):
    started = time.perf_counter()
    with pytest.raises(ConfigError, match="and 4982 more"):
        load_judge_config(written("\n".join(f"k{i}: 1" for i in range(5000))))
    assert time.perf_counter() - started < 10


def test_overrides_reach_nested_keys_and_leave_the_given_mapping_alone(written):
    data = {"name": "a", "train": {"epochs": 3}}
    assert override(data, ["train.epochs=5", "train.seed=1", "base=x=y", "cut=head"]) == {
        "name": "a", "train": {"epochs": 5, "seed": 1}, "base": "x=y", "cut": "head",
    }  # fmt: skip
    assert data == {"name": "a", "train": {"epochs": 3}}
    assert load_judge_config(written(GOOD), ["max_tokens=32"]).max_tokens == 32


@pytest.mark.parametrize(
    "assignment", ["no-equals", "=1", "name.sub=1", "train=5", "traim.epochs=2", "train.epochs=many"]
)
def test_a_wrong_override_is_refused(written, assignment):
    with pytest.raises(ConfigError):
        load_judge_config(written(GOOD), [assignment])


@given(st.text(max_size=30))
def test_any_text_after_the_equals_sign_is_taken_as_json_or_as_itself(text):
    value = override({}, [f"a={text}"])["a"]
    assert value == text or not isinstance(value, str) or text.strip().startswith('"')


def test_an_absurdly_nested_override_is_taken_as_text():
    assert override({}, ["a=" + "[" * 100_000])["a"].startswith("[[")


def test_a_rubric_is_looked_for_beside_the_file_that_names_it(written, tmp_path):
    assert load_judge_config(written(GOOD + "rubric: r/x.yaml\n")).rubric == str((tmp_path / "r/x.yaml").resolve())


def test_a_rubric_that_an_override_names_is_looked_for_in_the_working_directory(written, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = load_judge_config(written(GOOD + "rubric: r/x.yaml\n"), ["rubric=mine.yaml"])
    assert found.rubric == str((tmp_path / "here" / "mine.yaml").resolve())


def test_settings_cannot_be_changed_after_they_are_read():
    config = parse(JudgeConfig, {"name": "a", "base": "b"}, where="here")
    with pytest.raises(ValueError, match="frozen"):
        config.name = "b"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("other_bases: [small]", "twice"),
        ("other_bases: [a, a]", "twice"),
        ("kind: verdict\nother_bases: [a]", "scalar"),
    ],
)
def test_bases_that_cannot_be_compared_are_refused(written, lines, said):
    with pytest.raises(ConfigError, match=said):
        load_judge_config(written(f"name: judge\nbase: small\n{lines}\n"))


def test_every_shipped_judge_configuration_is_valid():
    for path in (conf_folder() / "judges").glob("*.yaml"):
        config = load_judge_config(path)
        assert config.rubric is None or config.rubric.endswith(".yaml")
