"""The step that puts a new output in the place of an old one, on a local disk and on a file system elsewhere."""

import json
import threading

import pytest
from pyspark.sql import functions as F

from quality_judge.errors import CheckFailed, CorpusError, RunConflict
from quality_judge.spark import switch as switching
from quality_judge.spark.lock import held
from quality_judge.spark.places import Place
from quality_judge.spark.publish import MANIFEST_FILE, Staging, lock_of, published, read_json, refuse_overlap
from quality_judge.spark.switch import LOG_FOLDER, exchanged, switch

TABLE = "quality-judge-tests"
OTHER_TABLE = "quality-judge-other-tests"
FILES = 3
PLAN = "0123456789abcdef"


@pytest.fixture(scope="module")
def mounted(spark, tmp_path_factory):
    """A folder that Hadoop's viewfs shows as one elsewhere; it reads its table of mounts once."""
    folder = tmp_path_factory.mktemp("mounted")
    for table in (TABLE, OTHER_TABLE):
        spark._jsc.hadoopConfiguration().set(f"fs.viewfs.mounttable.{table}.link./mounted", f"file://{folder}")
    return folder


@pytest.fixture
def elsewhere(mounted, tmp_path):
    """The folder `data` of the test's own folder, by a path that nothing can take for a local one."""
    (mounted / tmp_path.name).mkdir()
    (tmp_path / "data").symlink_to(mounted / tmp_path.name)
    return f"viewfs://{TABLE}/mounted/{tmp_path.name}"


def write(spark, output, rows, *, tables=("",), fail=False):
    def rows_written(staging):
        for table in tables:
            staging.write(spark.range(0, rows, 1, FILES), table)
        staging.write_json(MANIFEST_FILE, {"rows": rows})
        if fail:
            raise CheckFailed("no")
        return {"rows": rows}

    return published(spark, output, rows_written, tables=tables)


def write_but_die_at_the_commit(monkeypatch, spark, output):
    commit = switching._commit

    def dying(log, files):
        if files:
            raise KeyboardInterrupt
        commit(log, files)

    monkeypatch.setattr(switching, "_commit", dying)
    with pytest.raises(KeyboardInterrupt):
        write(spark, output, 9)
    monkeypatch.setattr(switching, "_commit", commit)


def test_two_folders_change_places_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    assert exchanged(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["a"]
    assert not exchanged(tmp_path / "a", tmp_path / "nowhere")


def test_without_that_step_two_renames_do_and_a_failed_one_is_undone(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(switching, "exchanged", lambda one, other: False)
    write(spark, str(tmp_path / "out"), 3)
    write(spark, str(tmp_path / "out"), 5)
    assert spark.read.parquet(str(tmp_path / "out")).count() == 5
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(CheckFailed, match="the old output stands"):
        switch(Place.at(spark, str(tmp_path / "nothing")), Place.at(spark, str(tmp_path / "out")))
    assert spark.read.parquet(str(tmp_path / "out")).count() == 5


def test_at_every_moment_a_reader_lists_one_whole_output(spark, tmp_path):
    """Names are listed as a reader of Spark does first of all; every listing is that of one run."""
    output = tmp_path / "out"
    seen, ended = set(), threading.Event()

    def name_files():
        while not ended.is_set():
            seen.add(frozenset(path.name for path in output.iterdir() if path.name.startswith("part-")))

    write(spark, str(output), 1)
    wholes = [frozenset(path.name for path in output.glob("part-*"))]
    reader = threading.Thread(target=name_files)
    reader.start()
    for rows in range(2, 6):
        write(spark, str(output), rows)
        wholes.append(frozenset(path.name for path in output.glob("part-*")))
    ended.set()
    reader.join()
    assert len(seen) > 1
    assert seen <= set(wholes)


def test_elsewhere_plain_spark_reads_the_old_or_the_new_and_old_files_go(spark, elsewhere, tmp_path):
    output = f"{elsewhere}/out"
    for rows in (3, 5, 4):
        assert write(spark, output, rows) == {"rows": rows}
        assert spark.read.parquet(output).count() == rows
        assert read_json(spark, output, MANIFEST_FILE) == {"rows": rows}
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["out"]
        assert len(list((tmp_path / "data" / "out").glob("part-*"))) == FILES
    assert [path.name for path in (tmp_path / "data" / "out" / LOG_FOLDER).glob("[0-9]*")] == ["29.compact"]


def test_elsewhere_files_that_the_log_does_not_name_are_never_read(spark, elsewhere, tmp_path):
    output = f"{elsewhere}/out"
    write(spark, output, 3)
    spark.range(100).coalesce(1).write.mode("append").parquet(str(tmp_path / "data" / "out"))
    assert spark.read.parquet(output).count() == 3
    with pytest.raises(CheckFailed, match="no"):
        write(spark, output, 9, fail=True)
    assert spark.read.parquet(output).count() == 3
    write(spark, output, 5)
    assert sorted(row["id"] for row in spark.read.parquet(output).collect()) == list(range(5))
    assert len(list((tmp_path / "data" / "out").glob("part-*"))) == FILES


def test_elsewhere_a_run_killed_between_moving_and_naming_changes_nothing(spark, elsewhere, tmp_path, monkeypatch):
    output = f"{elsewhere}/out"
    write(spark, output, 3)

    write_but_die_at_the_commit(monkeypatch, spark, output)
    assert len(list((tmp_path / "data" / "out").glob("part-*"))) == 2 * FILES
    assert spark.read.parquet(output).count() == 3
    write(spark, output, 4)
    assert spark.read.parquet(output).count() == 4


def test_elsewhere_what_a_run_killed_before_it_tidied_left_goes_when_the_next_finds_itself_published(
    spark, elsewhere, tmp_path, monkeypatch
):
    def planned(staging):
        if done := staging.already_published(PLAN):
            return done
        run = staging.resume(PLAN)
        table = staging.write(spark.range(0, 5, 1, FILES))
        names = [file.rpartition("/")[2] for file in table.inputFiles()]
        run.child("receipts").child("00000.json").write_json({"files": names})
        staging.write_manifest({"rows": 5, "plan": PLAN})
        return {"rows": 5}

    def killed(*given, **named):
        raise KeyboardInterrupt

    write(spark, f"{elsewhere}/out", 3)
    with monkeypatch.context() as patched:
        patched.setattr(switching, "_tidy_log_table", killed)
        patched.setattr(Staging, "discard", killed)
        with pytest.raises(KeyboardInterrupt):
            published(spark, f"{elsewhere}/out", planned)
    assert len(list((tmp_path / "data" / "out").glob("part-*"))) == 2 * FILES
    assert published(spark, f"{elsewhere}/out", planned)["plan"] == PLAN
    assert len(list((tmp_path / "data" / "out").glob("part-*"))) == FILES
    assert spark.read.parquet(f"{elsewhere}/out").count() == 5


def test_the_same_path_of_two_file_systems_is_two_places(spark, mounted, tmp_path):
    there = f"viewfs://{TABLE}/mounted/{tmp_path.name}"
    for given in (f"viewfs://{OTHER_TABLE}/mounted/{tmp_path.name}", f"/mounted/{tmp_path.name}"):
        refuse_overlap(spark, given, there)
    with pytest.raises(CorpusError, match="lie within one another"):
        refuse_overlap(spark, f"{there}/in", there)


def test_elsewhere_a_first_output_is_not_there_until_it_is_whole(spark, elsewhere, monkeypatch):
    write_but_die_at_the_commit(monkeypatch, spark, f"{elsewhere}/out")
    with pytest.raises(Exception, match="UNABLE_TO_INFER_SCHEMA"):
        spark.read.parquet(f"{elsewhere}/out").count()
    write(spark, f"{elsewhere}/out", 4)
    assert spark.read.parquet(f"{elsewhere}/out").count() == 4


def test_elsewhere_an_output_of_several_tables_is_published_table_by_table(spark, elsewhere):
    output = f"{elsewhere}/out"
    for rows in (2, 6):
        write(spark, output, rows, tables=("kept", "dropped"))
        assert [spark.read.parquet(f"{output}/{name}").count() for name in ("kept", "dropped")] == [rows, rows]


def test_elsewhere_what_no_run_of_ours_wrote_is_not_replaced(spark, elsewhere, tmp_path):
    spark.range(3).write.parquet(f"{elsewhere}/out")
    with pytest.raises(CorpusError, match="is not replaced"):
        write(spark, f"{elsewhere}/out", 1)


@pytest.mark.parametrize("where", ["local", "elsewhere"])
def test_of_two_runs_one_wins_and_the_other_says_who_holds_the_output(spark, elsewhere, tmp_path, where):
    output = str(tmp_path / "out") if where == "local" else f"{elsewhere}/out"
    with held(lock_of(spark, output)), pytest.raises(RunConflict, match="held by process"):
        write(spark, output, 3)
    write(spark, output, 3)
    assert spark.read.parquet(output).count() == 3
    assert [path for path in [*tmp_path.iterdir(), *(tmp_path / "data").iterdir()] if "lock" in path.name] == []


def test_elsewhere_a_lock_that_nobody_touches_any_more_is_taken(spark, elsewhere, monkeypatch):
    from quality_judge.spark import lock

    place = lock_of(spark, f"{elsewhere}/out")
    place.write(b'{"host": "gone", "pid": 1, "since": "1970"}')
    with pytest.raises(RunConflict, match="process 1 on gone"):
        write(spark, f"{elsewhere}/out", 3)
    monkeypatch.setattr(lock, "DEAD_AFTER_SECONDS", -1.0)
    write(spark, f"{elsewhere}/out", 3)
    assert not place.exists()


def test_elsewhere_a_run_that_lost_its_lock_publishes_nothing_and_leaves_it_to_the_other(spark, elsewhere, monkeypatch):
    from quality_judge.spark import lock

    monkeypatch.setattr(lock, "TOUCHED_EVERY_SECONDS", 1.0)
    place, theirs = lock_of(spark, f"{elsewhere}/out"), {"host": "other", "pid": 7, "since": "1970"}
    write(spark, f"{elsewhere}/out", 3)

    def overtaken(staging):
        place.write(json.dumps(theirs).encode())
        staging.write(spark.range(9))
        next(thread for thread in threading.enumerate() if thread.name == "quality-judge-lease").join(3)
        return {"rows": 9}

    with pytest.raises(RunConflict, match="taken by process 7 on other"):
        published(spark, f"{elsewhere}/out", overtaken)
    assert place.read_json() == theirs
    assert spark.read.parquet(f"{elsewhere}/out").count() == 3


def test_elsewhere_a_lock_file_that_is_gone_for_a_moment_is_not_lost(spark, elsewhere):
    """Some stores delete a file before they replace it."""
    place = lock_of(spark, f"{elsewhere}/out")

    def in_between(staging):
        place.delete()
        staging.write(spark.range(9))
        return {"rows": 9}

    published(spark, f"{elsewhere}/out", in_between)
    assert spark.read.parquet(f"{elsewhere}/out").count() == 9
    assert not place.exists()


def test_elsewhere_a_run_that_lost_its_lock_leaves_the_folder_of_their_plan(spark, elsewhere):
    place = lock_of(spark, f"{elsewhere}/out")

    def overtaken(staging):
        staging.resume(PLAN).make_folder()
        place.write(b"of another run")
        raise CheckFailed("no")

    with pytest.raises(RunConflict, match="taken by another process"):
        published(spark, f"{elsewhere}/out", overtaken)
    assert Place.at(spark, f"{elsewhere}/.out.run-{PLAN}").exists()


def test_a_lock_file_without_a_holder_holds_nobody_up(spark, tmp_path):
    (tmp_path / ".out.lock").write_text("of a run that was killed")
    write(spark, str(tmp_path / "out"), 3)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_row_that_fails_is_seen_by_no_reader(spark, elsewhere):
    def failing(staging):
        staging.write(spark.range(9).withColumn("x", F.raise_error(F.lit("the secret row"))))

    with pytest.raises(CheckFailed):
        published(spark, f"{elsewhere}/out", failing)
    assert not Place.at(spark, f"{elsewhere}/out").exists()


@pytest.mark.parametrize("where", ["local", "elsewhere"])
def test_a_small_file_is_written_whole_and_taken_names_are_kept(spark, elsewhere, tmp_path, where):
    place = Place.at(spark, str(tmp_path / "x.json") if where == "local" else f"{elsewhere}/x.json")
    assert place.read_json() is None
    place.write_json({"text": "water 水"})
    place.write_json({"text": "again"})
    assert place.read_json() == {"text": "again"}
    with pytest.raises(FileExistsError):
        place.write(b"{}", replace=False)
    assert place.read_json() == {"text": "again"}
    place.write(b"[1]")
    assert place.read_json() is None
    assert {one.name for one in place.parent.listed()} >= {"x.json"}
    assert not [one for one in place.parent.listed() if one.name.startswith(".x.json")]


def test_a_run_that_an_earlier_one_with_its_plan_had_published_before_is_not_done(spark, tmp_path):
    def planned(staging):
        if done := staging.already_published(PLAN):
            return done
        run = staging.resume(PLAN)
        table = staging.write(spark.range(3))
        names = [file.rpartition("/")[2] for file in table.inputFiles()]
        run.child("receipts").child("00000.json").write_json({"files": names})
        staging.write_manifest({"rows": 3})
        return {"rows": 3}

    output = str(tmp_path / "out")
    published(spark, output, planned)
    second = Staging(spark, output)
    second.resume(PLAN).child("receipts").child("00000.json").write_json({"files": []})  # and then it is killed
    assert Staging(spark, output).already_published(PLAN) is None
    second.discard()


@pytest.mark.parametrize("names", [["0"], ["9.compact", "10"]])
def test_the_table_of_a_stream_is_nobodys_to_replace(spark, elsewhere, tmp_path, names):
    for folder, output in ((tmp_path / "data" / "sink", f"{elsewhere}/sink"), (tmp_path / "own", tmp_path / "own")):
        (folder / LOG_FOLDER).mkdir(parents=True)
        for name in names:
            (folder / LOG_FOLDER / name).write_text("v1\n")
        (folder / "part-0.parquet").write_text("a stream's")
        with pytest.raises(CorpusError, match="is not replaced"):
            write(spark, str(output), 3)
        assert (folder / "part-0.parquet").read_text() == "a stream's"
