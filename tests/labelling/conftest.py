"""A labelling server, and rows to label."""

import json

import pytest
from labelling_server import Server


@pytest.fixture
def serve():
    """A function that starts a server; all are ended with the test."""
    pytest.importorskip("fastapi", reason="pip install 'quality-judge[label]'")
    started = []

    def start(rows, output, *options, port=0):
        started.append(Server(rows, output, *options, port=port))
        return started[-1]

    yield start
    for server in started:
        server.end()


@pytest.fixture
def drawn(tmp_path):
    """A function that writes rows as sample_for_labels.py does; their text tells which are good."""

    def write(count, **columns):
        path = tmp_path / "rows.jsonl"
        rows = [
            {"prompt": "", "completion": f"{'Good' if at % 3 else 'Poor'} text {at}: 水。 <b>not bold</b>",
             "id": str(at), "source": "web", "quality_score": 0.5, "strategy": "uniform", "inclusion_probability": 0.25,
             "copies": 1, "quality_judge": "f" * 16, **columns}
            for at in range(count)
        ]  # fmt: skip
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write
