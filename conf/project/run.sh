#!/usr/bin/env bash
# labels -> judge -> scores -> checks -> kept rows -> rows for the next round.   ./run.sh CORPUS [VERSION]
set -euo pipefail
cd "$(dirname "$0")"
CORPUS=${1:?which corpus? a file or folder of Parquet with a column text, such as: ./run.sh corpus}
VERSION=${2:-1}
JUDGE=judges/mine-$VERSION
OUT=output

case $VERSION in
  *[!0-9]*) NEXT=NEXT-VERSION ;;  # a name, such as v2, cannot be counted on
  *) NEXT=$((10#$VERSION + 1)) ;;
esac

# Ends with the exit code of the training. A judge that it refused (below its baseline) is put aside: else the next run
# would find it and score with it.
put_aside() {
  code=$?
  if [ -d "$JUDGE" ]; then
    rm -rf "$JUDGE.refused"
    mv "$JUDGE" "$JUDGE.refused"
    echo "the judge was refused and lies in $JUDGE.refused; nothing was scored" >&2
  fi
  exit "$code"
}

UNLABELLED=
[ ! -e "$CORPUS" ] || UNLABELLED=$CORPUS  # where it lies on this machine, its rows teach which words go together
[ -d "$JUDGE" ] || quality-judge train --config conf/judge.yaml --labels labels/*.jsonl ${UNLABELLED:+--unlabelled "$UNLABELLED"} --output "$JUDGE" || put_aside
quality-judge score --judge "$JUDGE" --input "$CORPUS" --output "$OUT/scored"
quality-judge validate --scored "$OUT/scored" --suite conf/scored.yaml --output "$OUT/validation-scored.json"
quality-judge filter --scored "$OUT/scored" --policy conf/policy.yaml --output "$OUT/filtered"
quality-judge validate --scored "$OUT/filtered" --suite conf/filtered.yaml --output "$OUT/validation-filtered.json"
quality-judge report --judge "$JUDGE" --filtered "$OUT/filtered" --validation "$OUT/validation-scored.json" --validation "$OUT/validation-filtered.json" --output "$OUT/report.html"
echo "read $OUT/report.html first" >&2
quality-judge sample --scored "$OUT/scored" --count 200 --strategy uncertain --labelled labels/*.jsonl --output "$OUT/next-round.jsonl"
echo "next: quality-judge label $OUT/next-round.jsonl --rubric conf/rubric.yaml --output labels/round-$VERSION.jsonl, then ./run.sh $CORPUS $NEXT" >&2
