"""The input that asks a model for the next item of each history."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from recbert.checkpoint import InputFormat
from recbert.inputs.padding import TokenIds, pad_right
from recbert.tokenizer import FIRST_ITEM_ID, MASK_ID, PAD_ID


class Query(NamedTuple):
    """A batch of histories as model input.

    Attributes:
        input_ids: (B, L) int64, right-padded.
        attention_mask: (B, L) int64, 1 at real tokens.
        last: (B,) int64, the position whose hidden state predicts.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    last: torch.Tensor


def known_items(history: TokenIds) -> TokenIds:
    """Keep the items of a history that the vocabulary has.

    Args:
        history: (L,) token ids, `[UNK]` for unknown items.
    """
    return history[history >= FIRST_ITEM_ID]


def build_query(histories: Sequence[TokenIds], input_format: InputFormat) -> Query:
    """Build the input that asks a model for the next item of each history.

    Items that the vocabulary does not have are skipped (their row was never trained); the latest
    `input_format.history_length` of the others stay. A history with none of them is refused: it has no input.

    Args:
        histories: B arrays of token ids, the earliest event first.
        input_format: the checkpoint's format.

    Raises:
        ValueError: a history has no known item.
    """
    rows = []
    for history in histories:
        row = known_items(history)[-input_format.history_length :]
        if len(row) == 0:
            raise ValueError(
                "a history has no item that the vocabulary knows: answer it by popularity instead"
            )
        rows.append(np.append(row, MASK_ID) if input_format.append_mask else row)
    input_ids, attention_mask = pad_right(rows, PAD_ID)
    return Query(input_ids, attention_mask, attention_mask.sum(1) - 1)
