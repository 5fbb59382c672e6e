"""Where a published table comes from, as an OpenLineage run event (spec 2-0-2) for the manifest. (driver)

Names, hashes, counts and times only; it sends nothing anywhere.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from quality_judge.judge import Judge
from quality_judge.spark.places import Place
from quality_judge.spark.plan import InputFile

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
PRODUCER = "https://pypi.org/project/quality-judge"
PACKAGES = ("quality-judge", "pyspark", "torch", "transformers", "tokenizers", "pyarrow", "pandas", "numpy")


def run_event(
    *, job: str, run: str, started: float, ended: float, inputs: Sequence[Mapping[str, Any]], output: Mapping[str, Any],
    facets: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """A COMPLETE event. run: a UUID. started, ended: seconds since 1970. inputs, output: from `dataset`."""
    nominal = {"nominalStartTime": iso(started), "nominalEndTime": iso(ended)}
    return {
        "eventType": "COMPLETE", "eventTime": iso(ended), "producer": PRODUCER, "schemaURL": SPEC,
        "run": {"runId": run, "facets": {"nominalTime": nominal, **facets}},
        "job": {"namespace": "quality-judge", "name": job}, "inputs": list(inputs), "outputs": [dict(output)],
    }  # fmt: skip


def dataset(place: Place, *, rows: int, bytes: int, files: int, output: bool) -> dict[str, Any]:
    """An input or output of the event."""
    key = "outputStatistics" if output else "inputStatistics"
    counts = {"rowCount": rows, "size": bytes, "fileCount": files}
    authority = place.path.toUri().getAuthority() or ""
    described = {"namespace": f"{place.scheme}://{authority}", "name": str(place.path.toUri().getPath())}
    return {**described, "outputFacets" if output else "inputFacets": {key: counts}}


def of_files(place: Place, files: Sequence[InputFile]) -> dict[str, Any]:
    """The input of the event that those files are."""
    rows, size = sum(file.rows for file in files), sum(file.bytes for file in files)
    return dataset(place, rows=rows, bytes=size, files=len(files), output=False)


def judge_facet(judge: Judge) -> dict[str, Any]:
    """Which judge scored: fingerprint, base and the hash of every file."""
    spec = judge.spec
    base = {"id": spec.base.id, "revision": spec.base.revision, "sha256": spec.base.sha256}
    return {"fingerprint": judge.fingerprint, "name": spec.name, "base": base, "files": dict(spec.files)}


def versions() -> dict[str, str]:
    """The versions of what decides scores and files."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def iso(seconds: float) -> str:
    """Seconds since 1970 as UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
