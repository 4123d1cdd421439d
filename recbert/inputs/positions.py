"""Positions counted from the end of a history instead of from its start."""

import torch
from torch import Tensor

from recbert.checkpoint import InputFormat


def add_positions(inputs: dict[str, Tensor], input_format: InputFormat) -> dict[str, Tensor]:
    """Give each input its positions where they are anchored on the right.

    The last input of a row stands at position `max_length - 1`, whatever the length, so that a learned
    position means "so many events before the one to predict".

    Args:
        inputs: `input_ids` and `attention_mask` (B, L) int64, right-padded.
        input_format: says where positions are anchored.

    Returns:
        The inputs, with `position_ids` (B, L) int64 where they are anchored on the right. Keep the mask: an
        attention without one reads positions as those of packed sequences.
    """
    if input_format.anchoring == "left":
        return inputs
    mask = inputs["attention_mask"]
    places = torch.arange(mask.shape[1]) + input_format.max_length - mask.sum(1, keepdim=True)
    # Padding comes last: it is attended by nothing, and gets a position that the model has.
    return {**inputs, "position_ids": places.clamp(max=input_format.max_length - 1)}
