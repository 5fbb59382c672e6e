"""What a task of `stage` runs: whole rows in, whole rows and their scores out. (executor)"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pyarrow as pa

from quality_judge.spark.worker import in_arrow, score_batches


def score_record_batches(
    folder: str, fingerprint: str, batches: Iterator[pa.RecordBatch], gpus_per_task: float
) -> Iterator[pa.RecordBatch]:
    """Each batch, the struct of texts in its last column replaced by the struct of `udf`. Raises as `score_batches`."""
    waiting: deque[pa.RecordBatch] = deque()

    def texts() -> Iterator[tuple[pa.Array, ...]]:
        for batch in batches:
            waiting.append(batch)
            read = batch.column(batch.num_columns - 1)
            yield tuple(read.field(i) for i in range(read.type.num_fields))

    for found in score_batches(folder, fingerprint, texts(), gpus_per_task):
        batch, scores = waiting.popleft(), in_arrow(found)
        columns = [pa.concat_arrays([pa.array([], column.type), *column.chunks]) for column in scores.columns]
        struct = pa.StructArray.from_arrays(columns, scores.column_names)
        last = batch.num_columns - 1
        schema = batch.schema.set(last, pa.field(batch.schema.names[last], struct.type))
        yield pa.RecordBatch.from_arrays([*batch.columns[:last], struct], schema=schema)
