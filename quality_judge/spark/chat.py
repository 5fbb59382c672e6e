"""Chats in Spark: what `engine.chat` says, as expressions, so that no chat goes through Python. (driver)"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, StringType, StructType

from quality_judge.samples import ASSISTANT, CONTENT, ROLE


def is_chat(kind: DataType | None) -> bool:
    """Whether it is an array of messages with a role and a content in text; other fields may stand beside them."""
    if not isinstance(kind, ArrayType) or not isinstance(kind.elementType, StructType):
        return False
    fields = {field.name: field.dataType for field in kind.elementType}
    return all(isinstance(fields.get(name), StringType) for name in (ROLE, CONTENT))


def chat_columns(chat: Column) -> tuple[Column, Column]:
    """(prompt, completion) of a column of chats; the completion of a chat without an answer is null."""
    contents = F.transform(chat, lambda message: F.coalesce(message.getField(CONTENT), F.lit("")))
    last = F.coalesce(F.array_max(F.transform(chat, _place_of_answer)), F.lit(0))
    before = F.array_join(F.slice(contents, 1, F.greatest(last - 1, F.lit(0))), "\n")
    return F.when(last > 1, before).otherwise(F.lit("")), F.when(last > 0, F.get(chat, last - 1).getField(CONTENT))


def _place_of_answer(message: Column, index: Column) -> Column:
    """Where the message stands in its chat, from 1, when it is the assistant's; else 0."""
    return F.when(message.getField(ROLE) == ASSISTANT, index + 1).otherwise(F.lit(0))
