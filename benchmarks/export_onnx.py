"""The model of a task's judge, head included, as an ONNX graph of any batch and length: TASK/model.onnx.

    python benchmarks/export_onnx.py TASK_FOLDER

Runs in the environment of the peers, which has onnx.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from contender import torch_model


def main(task: Path) -> None:
    """Writes the graph."""
    model, ids = torch_model(task)
    batch, lengths = next(ids.batches(["Water boils at 100 degrees.", "Yes."], 2))
    model.body.config._attn_implementation = "eager"
    axes = {"ids": {0: "rows", 1: "tokens"}, "lengths": {0: "rows"}, "raw": {0: "rows"}}
    torch.onnx.export(
        model, (torch.from_numpy(batch), torch.from_numpy(lengths)), str(task / "model.onnx"), dynamo=False,
        input_names=["ids", "lengths"], output_names=["raw"], dynamic_axes=axes, opset_version=17,
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
