"""A column of chats as two columns of text: what the assistant said last, and what was said before it.

    [{"role": "user", "content": "Why is the sky blue?"}, {"role": "assistant", "content": "Air scatters blue."}]
    prompt "Why is the sky blue?", completion "Air scatters blue."

Earlier contents stand behind one another, a line break between, as label files have it; roles are not written, so no
message can pose as one of another role. Between prompt and completion stands what the judge's encoding puts there: for
encoders and verdict judges no text can spell it, for a scalar judge on a decoder it is a line break. A content that is
null says nothing, and what follows the last answer is not read. `spark.chat` says the same to Spark.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from quality_judge.samples import ASSISTANT, CONTENT, ROLE


def is_chat(kind: pa.DataType) -> bool:
    """Whether it is a list of messages with a role and a content in text; other fields may stand beside them."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    fields = {field.name: field.type for field in kind.value_type}
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    return all(name in fields and any(is_text(fields[name]) for is_text in texts) for name in (ROLE, CONTENT))


def chat_columns(chats: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """(prompts, completions) of n chats, large_binary (n,); the completion of a chat without an answer is null."""
    if isinstance(chats, pa.ChunkedArray):
        chats = chats.combine_chunks()
    messages, sizes = chats.flatten(), pc.list_value_length(chats).fill_null(0).to_pylist()
    roles = pc.struct_field(messages, ROLE).cast(pa.large_binary()).to_pylist()
    contents = pc.struct_field(messages, CONTENT).cast(pa.large_binary()).to_pylist()
    assistant, first = ASSISTANT.encode(), 0
    prompts: list[bytes] = []
    completions: list[bytes | None] = []
    for size in sizes:
        last = next((i for i in range(first + size - 1, first - 1, -1) if roles[i] == assistant), None)
        prompts.append(b"" if last is None else b"\n".join(content or b"" for content in contents[first:last]))
        completions.append(None if last is None else contents[last])
        first += size
    return pa.array(prompts, pa.large_binary()), pa.array(completions, pa.large_binary())
