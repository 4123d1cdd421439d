"""New rows behind the old ones of a model's item tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from recbert.models import item_head, item_table, spare_biases
from recbert.tokenizer import FIRST_ITEM_ID

_ROWS_AT_ONCE = 1 << 15


@torch.no_grad()
def grow_tables(
    model: PreTrainedModel, count: int, neighbours: NDArray[np.int64] | None = None, items: int | None = None
) -> None:
    """Add rows for new items to a model, in place; tables that were one stay one, and old rows as they are.

    A new row is the mean of the rows of its neighbours, in the table of items as input and in that of items
    as candidates alike; without neighbours it is the mean of all old items. Its bias, where there is one, is
    the mean of all in any case: it stands for how often an item is taken, of which nothing is known.

    Args:
        model: a stock model with one row for each token.
        count: how many rows, at least 1.
        neighbours: (count, K) item indices of the old items that each new one is like; -1 fills up.
        items: how many of the old items means are taken over, the first; None takes all.
    """
    _rebuild(
        model,
        tables=lambda table: _grown(table, count, neighbours, items),
        biases=lambda bias: _grown(bias, count, None, items),
    )


@torch.no_grad()
def keep_rows(model: PreTrainedModel, rows: NDArray[np.int64]) -> None:
    """Keep some rows of a model's item tables, in place; tables that were one stay one.

    Args:
        model: a stock model with one row for each token.
        rows: the token ids to keep, ascending, those of special tokens among them.
    """
    kept = torch.from_numpy(rows)
    _rebuild(model, tables=lambda table: table[kept], biases=lambda bias: bias[kept])


def _rebuild(
    model: PreTrainedModel, *, tables: Callable[[Tensor], Tensor], biases: Callable[[Tensor], Tensor]
) -> None:
    """Put new tables in place of a model's item tables and biases."""
    entered = cast(nn.Embedding, model.get_input_embeddings())
    head, (ranked, bias) = item_head(model), item_table(model)
    for table in (entered.weight,) if ranked is entered.weight else (entered.weight, ranked):
        _replace(model, table, tables(table))
    for values in [*([] if bias is None else [bias]), *spare_biases(model)]:
        _replace(model, values, biases(values))
    rows = len(entered.weight)
    for module in (entered, head):
        for name in ("num_embeddings", "out_features"):
            if hasattr(module, name):
                setattr(module, name, rows)
    model.config.vocab_size = rows


def _replace(model: nn.Module, old: Tensor, table: Tensor) -> None:
    """Put a table wherever a parameter stands: families keep the bias in several places."""
    new = nn.Parameter(table, old.requires_grad)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter is old:
                setattr(module, name, new)


def _grown(old: Tensor, count: int, neighbours: NDArray[np.int64] | None, num_items: int | None) -> Tensor:
    """Give a table (V, D) or bias (V,) with rows behind it that are means of its items."""
    table = torch.cat([old, old.new_empty(count, *old.shape[1:])])
    items, new = table[FIRST_ITEM_ID : len(old)][:num_items], table[len(old) :]
    new.copy_(items.mean(0, dtype=torch.promote_types(items.dtype, torch.float32)))
    if neighbours is None:
        return table
    for start in range(0, count, _ROWS_AT_ONCE):
        near = torch.from_numpy(neighbours[start : start + _ROWS_AT_ONCE]).to(table.device)  # (b, K)
        there = near >= 0
        weights = there / there.sum(1, keepdim=True).clamp(min=1)
        means = (items[near.clamp(min=0)].float() * weights[..., None]).sum(1)  # (b, D)
        has_some = there.any(1)
        new[start : start + _ROWS_AT_ONCE][has_some] = means[has_some].to(table.dtype)
    return table
