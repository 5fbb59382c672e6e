"""Sound tables on either engine, and the faults that are planted in them, one each."""

import math

import pandas

CANARY = "ssn 078-05-1120 belongs to nobody else"
SCORED = "quality_score double, quality_code string, quality_judge string, text string"
FILTERED = f"{SCORED}, quality_decision string, quality_reason string"
SCORE, CODE, JUDGE, TEXT, DECISION, REASON = range(6)


def scored_rows():
    """Twenty sound rows of a scored table; the last one has no text and so no score."""
    rows = [[0.05 + 0.045 * i, "OK", "f1", f"{CANARY} {i}"] for i in range(19)]
    return [*rows, [None, "NULL_TEXT", "f1", None]]


def filtered_rows():
    """The same twenty rows with a decision and a reason each."""
    rows = scored_rows()
    for row in rows:
        decision = "unscored" if row[SCORE] is None else "keep" if row[SCORE] > 0.5 else "drop"
        row += [decision, f"because it is {decision}"]
    return rows


def planted(rows, changes):
    """`rows` with each {(row number, column number): value} of `changes` put in; "all" changes every row."""
    for (number, column), value in changes.items():
        for row in rows if number == "all" else [rows[number]]:
            row[column] = value
    return rows


def pandas_frame(rows):
    names = [field.split()[0] for field in FILTERED.split(", ")][: len(rows[0])]
    frame = pandas.DataFrame(rows, columns=names)
    return frame.astype({"quality_score": "float64"}) if not frame["quality_score"].map(type).eq(str).any() else frame


def spark_frame(session, rows):
    schema = FILTERED if len(rows[0]) == 6 else SCORED
    if any(isinstance(row[SCORE], str) for row in rows):
        schema = schema.replace("quality_score double", "quality_score string")
        rows = [[None if row[SCORE] is None else str(row[SCORE]), *row[1:]] for row in rows]
    return session.createDataFrame([tuple(row) for row in rows], schema)


# fault: suite, what is planted, the note of the expectation that has to notice
FAULTS = {
    "score 1.2": ("scored", {(3, SCORE): 1.2}, "a score is a probability"),
    "infinite score": ("scored", {(3, SCORE): math.inf}, "a score is a probability"),
    "NaN score": ("scored", {(3, SCORE): math.nan}, "OK rows have a finite score"),
    "null score": ("scored", {(3, SCORE): None}, "OK rows have a finite score"),
    "score without OK": ("scored", {(3, CODE): "TOO_LONG"}, "OK rows have a finite score"),
    "unknown code": ("scored", {(3, CODE): CANARY}, "every row has a code"),
    "null code": ("scored", {(3, CODE): None}, "every row has a code"),
    "many unscored": (
        "scored",
        {(row, column): value for row in range(3) for column, value in ((SCORE, None), (CODE, "BAD_RECORD"))},
        "few rows went unscored",
    ),
    "all liked": ("scored", {("all", SCORE): 0.999}, "a judge that likes everything"),
    "two fingerprints": ("scored", {(3, JUDGE): "f2"}, "all rows were scored by one judge"),
    "no fingerprint": ("scored", {(3, JUDGE): None}, "every scored row names its judge"),
    "low pass rate": ("filtered", {("all", DECISION): "drop"}, "a filter that keeps everything"),
    "null decision": ("filtered", {(3, DECISION): None}, "every row has a decision"),
    "unknown decision": ("filtered", {(3, DECISION): "kept"}, "every row has a decision"),
    "null reason": ("filtered", {(3, REASON): None}, "no decision without a reason"),
    "kept unscored": ("filtered", {(19, DECISION): "keep"}, "rows without a score are unscored"),
}
