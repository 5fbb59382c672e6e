"""The categories a model writes behind a bad verdict, as Llama Guard does: `unsafe`, a line break, `S1,S5`, its end.

Greedy, and held to the codes of the rubric: at each place only what can go on there competes, so that a few rows of the
output layer suffice and nothing but a list of codes comes out. It knows nothing of scores, prompts or tokenizers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from quality_judge.engine.kinds import products
from quality_judge.judge_spec import WrittenCodes


@torch.inference_mode()
def written_codes(
    body: nn.Module, ids: Sequence[int], codes: WrittenCodes, *, rows: Tensor, bias: Tensor, place: Mapping[int, int]
) -> tuple[int, ...]:
    """The indices of the codes the model writes behind `ids`, prompt and opening, in the order it writes them.

    rows, bias: of the output layer, (R, H) and (R,). place: the row of each id. One row at a time, with its own cache:
    what one text is answered does not depend on its neighbours.
    """
    device = rows.device
    found: list[int] = []
    at: tuple[int, ...] = ()
    fed = torch.tensor([[*ids, *codes.bad]], device=device)
    cache = None
    while True:
        output = body(input_ids=fed, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        ways = _ways(codes, found, at)
        tokens = sorted(ways)
        index = torch.tensor([place[token] for token in tokens], device=device)
        state = output.last_hidden_state[0, -1].float()
        best = tokens[int((products(state, rows[index]) + bias[index]).argmax())]
        ended, at = ways[best]
        if ended is not None:
            found.append(ended)
        if best == codes.end:
            return tuple(found)
        fed = torch.tensor([[best]], device=device)


def _ways(
    codes: WrittenCodes, found: Sequence[int], at: tuple[int, ...]
) -> dict[int, tuple[int | None, tuple[int, ...]]]:
    """What may be written next: for each id, the code that is then known to have ended, and what has begun instead.

    at: the ids written since the last code that is in `found`.
    """
    spelled = codes.next if found else codes.first
    open_codes = {index: ids for index, ids in enumerate(spelled) if index not in found}
    ways: dict[int, tuple[int | None, tuple[int, ...]]] = {}
    for ids in open_codes.values():
        if len(ids) > len(at) and ids[: len(at)] == at:
            ways.setdefault(ids[len(at)], (None, (*at, ids[len(at)])))
    ended = next((index for index, ids in open_codes.items() if ids == at), None)
    if ended is not None:
        for index, ids in enumerate(codes.next):
            if index != ended and index not in found:
                ways.setdefault(ids[0], (ended, (ids[0],)))
        ways.setdefault(codes.end, (ended, ()))
    return ways
