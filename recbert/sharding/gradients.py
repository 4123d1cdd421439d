"""The norm of all gradients, those of the split tables included."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from recbert.sharding.exchange import group_of


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[nn.Parameter], tables: Mapping[str, DTensor], max_norm: float
) -> Tensor:
    """Scale all gradients down so that their common norm is at most `max_norm`; the same on every process.

    Args:
        parameters: replicated weights, whose gradients are averaged already.
        tables: split tables.
        max_norm: above 0; infinity only measures.

    Returns:
        The norm before, a scalar.
    """
    dense = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sparse = []
    for table in tables.values():
        if table.grad is not None:
            table.grad = table.grad.coalesce()  # rows that several processes have asked for count once
            sparse.append(table.grad.values())
    total = torch.nn.utils.get_total_norm(dense).square()
    mine = torch.nn.utils.get_total_norm(sparse).square().to(total.device)
    for table in list(tables.values())[:1]:
        distributed.all_reduce(mine, group=group_of(table))
    norm = (total + mine).sqrt()
    if norm > max_norm:
        for gradient in (*dense, *sparse):
            gradient.mul_(max_norm / norm)
    return norm
