"""How much of a text a tokenizer does not know: a model reads nothing of that, whatever it is taught.

It knows nothing of bases, labels or judges.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from quality_judge.engine.encode import content_tokenizer


def unknown_shares(tokenizer_json: str, texts: Sequence[str]) -> np.ndarray:
    """For each text the share of its tokens that stand for what the tokenizer does not know, float64 (n,), 0 to 1.

    tokenizer_json: of content alone, as a judge holds it. A whole word, or several in a row, may be one such token, so
    this is the least that is not read; 0 where a tokenizer spells in bytes what it does not know.
    """
    model, tokenizer = json.loads(tokenizer_json)["model"], content_tokenizer(tokenizer_json)
    unknown: Any = model["unk_id"] if "unk_id" in model else tokenizer.token_to_id(model.get("unk_token") or "")
    rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    return np.array([row.count(unknown) / max(1, len(row)) for row in rows], float)
