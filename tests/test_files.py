"""Files are written on this machine, whole, and nowhere else."""

from pathlib import Path

import pytest

from quality_judge.errors import InputError
from quality_judge.files import write_beside


@pytest.mark.parametrize(
    "path",
    ["s3a://bucket/rows.jsonl", Path("s3a://bucket/rows.jsonl"), Path("hdfs://nn/rows.jsonl"), "file://nn/rows.jsonl"],
)
def test_a_path_on_another_file_system_is_refused_and_makes_no_folder_of_that_name(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"written on this machine; got .*rows\.jsonl; give a local path"):
        write_beside(path, "{}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_uri_is_a_path_on_this_machine(tmp_path, kind):
    write_beside(kind((tmp_path / "rows.jsonl").as_uri()), "{}\n")
    assert (tmp_path / "rows.jsonl").read_text() == "{}\n"
