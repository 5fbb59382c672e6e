#!/usr/bin/env bash
# labels -> judge -> scores -> checks -> kept rows -> rows for the next round.   ./run.sh CORPUS [VERSION]
set -euo pipefail
cd "$(dirname "$0")"
CORPUS=${1:?which corpus? a file or folder of Parquet with a column text, such as: ./run.sh corpus}
JUDGE=judges/mine-${2:-1}
OUT=output

UNLABELLED=
[ ! -e "$CORPUS" ] || UNLABELLED=$CORPUS  # where it lies on this machine, its rows teach which words go together
[ -d "$JUDGE" ] || quality-judge train --config conf/judge.yaml --labels labels/*.jsonl ${UNLABELLED:+--unlabelled "$UNLABELLED"} --output "$JUDGE"
quality-judge score --judge "$JUDGE" --input "$CORPUS" --output "$OUT/scored"
quality-judge validate --scored "$OUT/scored" --suite conf/scored.yaml --output "$OUT/validation-scored.json"
quality-judge filter --scored "$OUT/scored" --policy conf/policy.yaml --output "$OUT/filtered"
quality-judge validate --scored "$OUT/filtered" --suite conf/filtered.yaml --output "$OUT/validation-filtered.json"
quality-judge report --judge "$JUDGE" --filtered "$OUT/filtered" --validation "$OUT/validation-scored.json" --validation "$OUT/validation-filtered.json" --output "$OUT/report.html"
echo "read $OUT/report.html first" >&2
quality-judge sample --scored "$OUT/scored" --count 200 --strategy uncertain --labelled labels/*.jsonl --output "$OUT/next-round.jsonl"
echo "next: quality-judge label $OUT/next-round.jsonl --rubric conf/rubric.yaml --output labels/round-${2:-1}.jsonl, then ./run.sh $CORPUS $((${2:-1} + 1))" >&2
