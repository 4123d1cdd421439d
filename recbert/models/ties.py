"""Items as input and items as candidates: one table, two, or two that are mirror images."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from recbert.models.head import item_head, item_table

TieItems = bool | Literal["mirrored"]
"""Whether both share one table; `mirrored`: see `mirror_items`."""


def untie_items(model: PreTrainedModel) -> None:
    """Give a model with one item table a second one for the candidates, a copy, in place.

    Training then moves the two apart, from where one table has learnt all that it can.

    Args:
        model: a stock model; one with two tables already stays as it is.
    """
    head, entered = item_head(model), cast(nn.Embedding, model.get_input_embeddings())
    if head.weight is entered.weight:
        head.weight = nn.Parameter(entered.weight.detach().clone())
        if head.bias is not None:  # its second name unties too
            head.bias = nn.Parameter(head.bias.detach().clone())
        model.config.tie_word_embeddings = False


def mirror_signs(table: torch.Tensor) -> torch.Tensor:
    """The signs (D,) that turn an item table (V, D) into its mirror image: 1, and -1 in the second half."""
    signs = torch.ones(table.shape[1], device=table.device)
    signs[table.shape[1] // 2 :] = -1
    return signs


@torch.no_grad()
def mirror_items(model: PreTrainedModel) -> None:
    """Make the table of items as candidates the mirror image of that of items as input, in place.

    They are equal in the first half of the width and opposite in the second. In the first an item is like
    its neighbours, in the second unlike itself: with one table an item that was seen always scores high.

    Args:
        model: a stock model with two tables.
    """
    entered, ranked = cast(nn.Embedding, model.get_input_embeddings()).weight, item_table(model)[0]
    ranked.copy_(entered * mirror_signs(entered))
