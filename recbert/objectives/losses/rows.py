"""Rows of the item table."""

from torch import Tensor
from torch.nn import functional


def gather_rows(weight: Tensor, ids: Tensor) -> Tensor:
    """Gather rows of the item table.

    Args:
        weight: (V, D) item matrix.
        ids: (M,) token ids; repeats are allowed.

    Returns:
        (M, D).
    """
    return functional.embedding(ids, weight)
