"""Rows of the item table."""

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
