"""Scores of what a sequence has already had, which a sampled loss can hold down."""

from __future__ import annotations

import torch
from torch import Tensor

from recbert.objectives.losses.rows import side_by_side, take_rows


def score_seen(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, rows: Tensor) -> Tensor:
    """Score, at each label, the earlier labels of its sequence.

    Args:
        hidden: (N, D) hidden states.
        weight: (V, D) item matrix.
        bias: (V,) or None.
        labels: (N,) token ids, those of a sequence in the order of its events.
        rows: (N,) the sequence of each label, ascending, as `labelled` gives them.

    Returns:
        (N, M) in float32 (float64 for float64 input), M the labels of the longest sequence; -inf where there
        is no earlier label, and where it is the same item.
    """
    precise = torch.promote_types(hidden.dtype, torch.float32)
    shape, place = side_by_side(rows)
    items = take_rows(weight, labels).to(hidden.dtype)
    wide = hidden.new_zeros(*shape, hidden.shape[1]).index_put((rows, place), hidden)  # (B, M, D)
    wide_items = hidden.new_zeros(*shape, hidden.shape[1]).index_put((rows, place), items)
    scores = (wide @ wide_items.mT)[rows, place].to(precise)  # (N, M)
    if bias is not None:
        values = take_rows(bias, labels).to(precise)
        scores = scores + values.new_zeros(shape).index_put((rows, place), values)[rows]
    ids = labels.new_full(shape, -1).index_put((rows, place), labels)[rows]  # (N, M)
    earlier = torch.arange(shape[1], device=rows.device) < place[:, None]
    return scores.masked_fill(~earlier | (ids == labels[:, None]), -torch.inf)
