"""Rows of the item table, and the labels of one sequence side by side."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import functional

from recbert.sharding import exchange_rows


def take_rows(table: Tensor, ids: Tensor) -> Tensor:
    """Give rows of the item table or values of its bias; of split ones from the processes that hold them.

    Args:
        table: (V, D) item matrix, or (V,) bias.
        ids: (M,) token ids; repeats are allowed.

    Returns:
        (M, D), or (M,).
    """
    if isinstance(table, DTensor):
        return exchange_rows(table, ids)
    return functional.embedding(ids, table) if table.ndim == 2 else table[ids]


def side_by_side(rows: Tensor) -> tuple[tuple[int, int], Tensor]:
    """Lay labels out by sequence, so that one batched product serves all of a sequence's.

    Args:
        rows: (N,) the sequence of each label, ascending.

    Returns:
        shape: (B, M) of the layout, B sequences up to the last that has a label, M the most labels of one.
        place: (N,) the column of each label; its row is its sequence.
    """
    counts = torch.bincount(rows)
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    return (len(counts), int(counts.max()) if len(rows) else 0), place
