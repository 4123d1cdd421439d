"""First weights: attention that begins as an average of the history, items that begin where they belong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbert.models.families import FAMILIES
from recbert.models.head import item_table
from recbert.tokenizer import FIRST_ITEM_ID

_STRENGTH, _KEPT = 1.5, 0.2
_LINEAR_FROM = 3.0
"""Where GELU is a straight line for a normal variable around it; the norm behind takes the shift out."""


@torch.no_grad()
def start_mimetic(model: Any) -> None:
    """Add the identity to what stands between items as input and items as candidates, in place.

    These are the value and output projections of every attention layer. A fresh layer then adds the attended
    items' own vectors to the hidden state, instead of a random image of them that training has to undo: with
    a tied item matrix the first scores are similarities to the whole history. On small catalogues this
    generalises better. Source: Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers", 2023
    (there fitted to trained vision models; here the value side alone, at full strength). A transform between
    the last block and the items begins as the identity too.

    Args:
        model: a fresh stock model of a family whose table row names its projections.
    """
    row = FAMILIES[model.config.model_type]
    width = model.config.hidden_size
    for layer in range(model.config.num_hidden_layers):
        for place in row.attention_values:
            weight: Tensor = model.get_submodule(place.format(layer=layer)).weight  # (D, D) or (D, 3 D)
            weight[:, -width:].diagonal().add_(1)
    if row.head_transform is not None:
        transform = model.get_submodule(row.head_transform)
        transform.weight.diagonal().add_(1)
        transform.bias.add_(_LINEAR_FROM)


@torch.no_grad()
def start_items(model: Any, first: Tensor, second: Tensor) -> None:
    """Let the items of a fresh model begin at given vectors, in place.

    They are scaled to one and a half times the spread that the family draws its table with; a fifth of what
    was drawn stays, so that seeds differ and items without a vector can be told apart. Special tokens stay as
    drawn.

    Args:
        model: a fresh stock model with one row for each token.
        first: (V, D) of the items as input, in the tokenizer's order, such as those of
            `recbert.baselines.cooccurrence_vectors`.
        second: (V, D) of the items as candidates; unused where both share one table.

    Raises:
        ValueError: the vectors are all zero, or there are not as many, or not as wide ones, as the model has.
    """
    entered, ranked = model.get_input_embeddings().weight, item_table(model)[0]
    _place(entered, first)
    if ranked is not entered:
        _place(ranked, second)


def _place(table: Tensor, vectors: Tensor) -> None:
    """Move the items of a table, (rows, D), to vectors (V, D)."""
    items, spread = table[FIRST_ITEM_ID:], vectors.std()
    if items.shape != vectors.shape:
        raise ValueError(
            f"vectors are of shape {tuple(vectors.shape)} and the model's items {tuple(items.shape)}"
        )
    if not spread > 0:
        raise ValueError("all vectors are the same: no item of the training part stands near another one")
    items.copy_(_KEPT * items + _STRENGTH * items.std() / spread * vectors)
