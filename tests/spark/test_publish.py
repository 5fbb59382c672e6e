"""An output is whole and old, or whole and new, whatever happens to a run; nothing is left beside it."""

import shutil

import pytest
from pyspark.sql import functions as F

from quality_judge.errors import CheckFailed, CorpusError, JudgeError, RunConflict, UnreadableFile
from quality_judge.spark.publish import MANIFEST_FILE, Staging, published, read_json, refuse_loss, refuse_overlap

PLAN = "0123456789abcdef"


def write(spark, output, rows, **options):
    def rows_written(staging):
        staging.write(spark.range(rows))
        staging.write_json(MANIFEST_FILE, {"rows": rows, "text": "water 水"})
        return {"rows": rows}

    return published(spark, str(output), rows_written, **options)


def with_receipts(spark, staging, *, named, written):
    """What a run of a plan leaves before it publishes: a table of so many files, and a receipt that names so many."""
    run = staging.resume(PLAN)
    staging.write(spark.range(0, 9, 1, written))
    files = sorted(place.name for place in run.child("table").listed() if place.name.startswith("part-"))
    names = [files[i] if i < written else f"part-{i}" for i in range(named)]
    run.child("receipts").child("00000.json").write_json({"files": names})
    return {"rows": 9}


def left_beside(output):
    return sorted(path.name for path in output.parent.iterdir() if path != output)


@pytest.fixture
def output(spark, tmp_path):
    """An output that a run has written: 3 rows."""
    write(spark, tmp_path / "out", 3)
    return tmp_path / "out"


def test_a_second_run_replaces_the_first_and_leaves_nothing_stale(spark, output):
    (output / "part-stale.parquet").write_bytes(b"")
    write(spark, output, 5)
    assert spark.read.parquet(str(output)).count() == 5
    assert not (output / "part-stale.parquet").exists()
    assert read_json(spark, str(output), MANIFEST_FILE) == {"rows": 5, "text": "water 水"}
    assert left_beside(output) == []


@pytest.mark.parametrize("error", [CheckFailed, ValueError, KeyboardInterrupt, SystemExit])
def test_a_run_that_fails_leaves_the_old_output_and_nothing_of_its_own(spark, output, error):
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def failing(staging):
        staging.write(spark.range(9))
        raise error("no")

    with pytest.raises(error):
        published(spark, str(output), failing)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert left_beside(output) == []


@pytest.mark.parametrize(
    "error", [CorpusError("no space left"), JudgeError("damaged"), UnreadableFile("a", "b", "c"), CheckFailed("no")]
)
def test_whatever_ends_a_run_its_finished_shards_stay_for_the_next(spark, output, error):
    def failing(staging):
        with_receipts(spark, staging, named=1, written=1)
        raise error

    with pytest.raises(type(error)):
        published(spark, str(output), failing)
    assert left_beside(output) == [f".out.run-{PLAN}"]
    assert (output.with_name(f".out.run-{PLAN}") / "receipts" / "00000.json").exists()


@pytest.mark.parametrize(("named", "written"), [(2, 1), (1, 2)])
def test_a_table_that_holds_other_files_than_its_receipts_name_is_not_published(spark, output, named, written):
    with pytest.raises(RunConflict, match=f"name {named} files and {written} are in its table"):
        published(spark, str(output), lambda staging: with_receipts(spark, staging, named=named, written=written))
    assert spark.read.parquet(str(output)).count() == 3


def test_a_row_that_fails_while_it_is_written_leaves_the_old_output(spark, output):
    def failing(staging):
        staging.write(spark.range(9).withColumn("x", F.raise_error(F.lit("the secret row"))))

    with pytest.raises(CheckFailed, match="Spark failed") as refused:
        published(spark, str(output), failing)
    assert "secret" not in str(refused.value)
    assert spark.read.parquet(str(output)).count() == 3
    assert left_beside(output) == []


def test_a_run_killed_between_the_two_renames_is_repaired_by_the_next_even_when_that_fails(spark, output):
    shutil.copytree(output, output.with_name(".out.new-0123456789ab"))
    output.rename(output.with_name(".out.old"))
    with pytest.raises(ValueError, match="no"):
        published(spark, str(output), lambda staging: (_ for _ in ()).throw(ValueError("no")))
    assert spark.read.parquet(str(output)).count() == 3
    assert left_beside(output) == []


def test_a_run_killed_after_both_renames_leaves_the_new_output_and_the_next_tidies_up(spark, output):
    shutil.copytree(output, output.with_name(".out.old"))
    shutil.copytree(output, output.with_name(".outer.old"))  # of another output, "outer"
    Staging(spark, str(output)).discard()
    assert spark.read.parquet(str(output)).count() == 3
    assert left_beside(output) == [".outer.old"]


def test_what_a_run_of_an_output_with_a_longer_name_is_writing_stays(spark, output):
    others = [f".out.new-2.new-{PLAN[:12]}", f".out.run-2.run-{PLAN}"]
    for name in others:
        (output.parent / name).mkdir()
    staging = Staging(spark, str(output))
    staging.resume("f" * 16)
    staging.discard()
    assert left_beside(output) == others


def test_a_link_to_a_folder_stays_and_the_rows_land_in_the_folder(spark, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "scored")
    for rows in (3, 5):
        write(spark, tmp_path / "out", rows)
        assert spark.read.parquet(str(tmp_path / "disk" / "scored")).count() == rows
    assert (tmp_path / "out").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["scored"]


@pytest.mark.parametrize("name", ["out[1]", "out{1}", "out*"])
def test_an_output_that_spark_would_take_for_a_pattern_is_refused(spark, tmp_path, name):
    with pytest.raises(CorpusError, match="for a pattern; choose another --output"):
        write(spark, tmp_path / name, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_puts_the_old_output_back(spark, output, monkeypatch):
    staging = Staging(spark, str(output))
    with pytest.raises(CheckFailed, match="the old output stands"):
        staging.publish()  # nothing was written, so the second rename has nothing to move
    assert spark.read.parquet(str(output)).count() == 3
    assert left_beside(output) == []


@pytest.mark.parametrize("stands", ["a file", "a folder of someone else"])
def test_what_no_run_of_ours_wrote_is_never_replaced(spark, tmp_path, stands):
    if stands == "a file":
        (tmp_path / "out").write_text("precious")
    else:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(CorpusError, match="is not replaced"):
        write(spark, tmp_path / "out", 1)
    assert "precious" in {path.read_text() for path in tmp_path.rglob("*") if path.is_file()}


def test_an_output_of_another_job_is_never_replaced(spark, tmp_path):
    def said(staging):
        staging.write(spark.range(3))
        staging.write_manifest({"rows": 3})
        return {}

    output = str(tmp_path / "out")
    for _ in range(2):
        published(spark, output, said, job="score_corpus")
    with pytest.raises(CorpusError, match="is an output of score_corpus and is not replaced by one of filter_corpus"):
        published(spark, output, said, job="filter_corpus")
    assert spark.read.parquet(output).count() == 3


def test_an_empty_folder_and_a_new_parent_are_fine_outputs(spark, tmp_path):
    (tmp_path / "empty").mkdir()
    write(spark, tmp_path / "empty", 1)
    write(spark, f"{tmp_path}/new/deep/out/", 2)
    assert spark.read.parquet(f"{tmp_path}/new/deep/out").count() == 2


@pytest.mark.parametrize(
    ("given", "to"), [("corpus", "corpus"), ("corpus", "corpus/out"), ("corpus/in", "corpus"), ("cor*", "corpus/x")]
)
def test_an_output_within_its_own_input_is_refused(spark, tmp_path, given, to):
    (tmp_path / "corpus" / "in").mkdir(parents=True)
    with pytest.raises(CorpusError, match="lie within one another"):
        write(spark, tmp_path / to, 1, inputs=[str(tmp_path / given)])


def test_an_output_that_would_hold_an_input_which_is_not_there_yet_is_refused(spark, tmp_path):
    with pytest.raises(CorpusError, match="lie within one another"):
        write(spark, tmp_path / "scored", 1, inputs=[str(tmp_path / "scored" / "store")])


def test_an_output_within_its_input_by_another_name_is_refused(spark, tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "corpus")
    for given in (f"file://{tmp_path}/corpus", tmp_path / "link"):
        with pytest.raises(CorpusError, match="lie within one another"):
            refuse_overlap(spark, str(given), str(tmp_path / "corpus" / "out"))


def test_an_output_beside_its_input_is_not(spark, tmp_path):
    (tmp_path / "corpus").mkdir()
    assert write(spark, tmp_path / "corpus-scored", 1, inputs=[str(tmp_path / "corpus")]) == {"rows": 1}


def test_a_folder_that_cannot_be_made_is_bad_input(spark, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match="cannot be reached or written"):
        write(spark, tmp_path / "file" / "out", 1)


def test_rows_that_are_missing_or_doubled_are_refused():
    refuse_loss(3, 3)
    for out in (2, 4):
        with pytest.raises(CheckFailed, match=f"3 rows in and {out} rows out; nothing was published"):
            refuse_loss(3, out)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"rows": 1}', b"\xff\xfe"])
def test_a_damaged_or_foreign_manifest_is_bad_input(spark, tmp_path, content):
    (tmp_path / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(CorpusError, match=MANIFEST_FILE):
        read_json(spark, str(tmp_path), MANIFEST_FILE, keys=["judge"])
