"""Rows of a split table to the processes that ask for them, and gradients back to the rows' owners."""

from typing import Any, cast

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor


def owned_rows(rows: int, mesh: DeviceMesh) -> range:
    """Give the numbers of the rows that this process holds: equal slices, the last ones shorter or empty.

    Args:
        rows: length of the whole table.
        mesh: the processes, in one dimension.
    """
    size = _rows_each(rows, mesh)
    first = min(mesh.get_local_rank() * size, rows)
    return range(first, min(first + size, rows))


def own_slice(table: DTensor) -> Tensor:
    """Give the rows that this process holds, outside of autograd: the memory itself, not a copy.

    Args:
        table: (V, ...) with placement `Shard(0)`.
    """
    return cast(DTensor, table.detach()).to_local()


def group_of(table: DTensor) -> distributed.ProcessGroup:
    """Give the processes that share a table."""
    return table.device_mesh.get_group()


def exchange_rows(table: DTensor, ids: Tensor) -> Tensor:
    """Gather rows of a split table; every process asks for its own.

    Each row is asked for once, of its owner alone: the traffic grows with the distinct ids of a batch and not
    with the table. All processes have to call it equally often, if need be with no ids.

    The gradient arrives at the owners as a sparse tensor of the table's shape that holds the owned rows only,
    averaged over the processes as DistributedDataParallel does for all other weights.

    Args:
        table: (V, ...) with placement `Shard(0)`.
        ids: (M,) int64 row numbers, repeats allowed; M may differ between processes and be 0.

    Returns:
        (M, ...), a plain tensor.
    """
    rows: Tensor = _ExchangeRows.apply(table, ids)  # type: ignore[no-untyped-call]  # torch annotates none
    return rows


class _ExchangeRows(torch.autograd.Function):
    """Ids to their owners, rows back; in the backward pass gradients to the owners."""

    @staticmethod
    def forward(ctx: Any, table: DTensor, ids: Tensor) -> Tensor:  # noqa: D102
        group, local = group_of(table), own_slice(table)
        distinct, ctx.inverse = torch.unique(ids, return_inverse=True)  # ascending, so grouped by owner
        starts = torch.arange(1, group.size(), device=ids.device) * _rows_each(len(table), table.device_mesh)
        owner = torch.bucketize(distinct, starts, right=True)
        wanted = torch.bincount(owner, minlength=group.size())  # (P,) ids that each owner is asked for
        asked = torch.empty_like(wanted)
        distributed.all_to_all_single(asked, wanted, group=group)
        ctx.wanted, ctx.asked = wanted.tolist(), asked.tolist()
        asked_ids = distinct.new_empty(sum(ctx.asked))
        distributed.all_to_all_single(asked_ids, distinct, ctx.asked, ctx.wanted, group=group)
        ctx.asked_ids, ctx.table = asked_ids, table
        rows = local.new_empty(len(distinct), *local.shape[1:])
        answer = local[asked_ids - owned_rows(len(table), table.device_mesh).start]
        distributed.all_to_all_single(rows, answer, ctx.wanted, ctx.asked, group=group)
        return rows[ctx.inverse]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: D102
        group = group_of(ctx.table)
        mine = gradient.new_zeros(sum(ctx.wanted), *gradient.shape[1:])
        mine.index_add_(0, ctx.inverse, gradient)
        theirs = gradient.new_empty(sum(ctx.asked), *gradient.shape[1:])
        distributed.all_to_all_single(theirs, mine, ctx.asked, ctx.wanted, group=group)
        return sparse_gradient(ctx.table, ctx.asked_ids, theirs), None


def sparse_gradient(table: DTensor, ids: Tensor, values: Tensor) -> Tensor:
    """Give the gradient of a table that touches only some of the owned rows.

    Args:
        table: (V, ...).
        ids: (R,) owned row numbers, repeats add up.
        values: (R, ...) sums over the losses of all processes.

    Returns:
        Sparse, of the table's shape; the mean over the processes.
    """
    mean = values / group_of(table).size()
    return torch.sparse_coo_tensor(ids.unsqueeze(0), mean, table.shape, check_invariants=False)


def gather_batches(batch: Tensor, group: distributed.ProcessGroup) -> tuple[Tensor, list[int]]:
    """Concatenate what all processes hold.

    Args:
        batch: (N, ...); N may differ between processes and be 0.
        group: the processes.

    Returns:
        all of it: (sum of N, ...) in the order of the processes, the same everywhere.
        counts: N of each process.
    """
    size = torch.tensor([len(batch)], device=batch.device)
    sizes = [torch.empty_like(size) for _ in range(group.size())]
    distributed.all_gather(sizes, size, group=group)
    counts = torch.cat(sizes).tolist()
    padded = batch.new_zeros(max(counts), *batch.shape[1:])
    padded[: len(batch)] = batch
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded, group=group)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]), counts


def _rows_each(rows: int, mesh: DeviceMesh) -> int:
    """Give the rows of every process but the last ones: the slices of `Shard(0)`."""
    return -(-rows // mesh.size())
