"""Cross-entropy over the whole vocabulary whose item table is split over processes."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from recbert.sharding.exchange import gather_batches, group_of, own_slice, owned_rows, sparse_gradient

_CHUNK_ELEMENTS = 1 << 22
# With fewer rows the table is read, and its gradient written, more often than it is computed with.
_LEAST_ROWS = 64


def sharded_cross_entropy(hidden: Tensor, weight: DTensor, bias: DTensor | None, labels: Tensor) -> Tensor:
    """Sum of `-log softmax(hidden_n @ weight.T + bias)[labels_n]` over the labels of this process.

    Every process multiplies the hidden states of all with its own rows, a few at a time, and the normalisers
    are put together. (`loss_parallel` of torch wants all logits at once, and the backward pass, which the
    Trainer starts, inside of its block.) The gradient of the table is dense in the owned rows.

    Args:
        hidden: (N, D); N may differ between processes and be 0.
        weight: (V, D) with placement `Shard(0)`.
        bias: (V,) likewise, or None.
        labels: (N,) token ids.

    Returns:
        A scalar in float32, in nats.
    """
    losses: Tensor = _ShardedCrossEntropy.apply(  # type: ignore[no-untyped-call]  # torch annotates none
        hidden, weight, bias, labels
    )
    return losses.sum()


class _ShardedCrossEntropy(torch.autograd.Function):
    """Losses of this process's labels; the backward pass computes the logits anew."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, hidden: Tensor, weight: DTensor, bias: DTensor | None, labels: Tensor
    ) -> Tensor:
        group = group_of(weight)
        states, counts = gather_batches(hidden.float(), group)  # (M, D), M labels of all processes
        wanted, _ = gather_batches(labels, group)  # (M,)
        totals, chosen = states.new_empty(len(states)), states.new_zeros(len(states))
        own = owned_rows(len(weight), weight.device_mesh)
        for rows, logits in _logits(states, weight, bias):
            totals[rows] = logits.logsumexp(1)
            here, places = _owned(wanted[rows], own)
            chosen[rows][here] = logits[here, places]
        parts = [torch.empty_like(totals) for _ in counts]
        distributed.all_gather(parts, totals, group=group)
        distributed.all_reduce(chosen, group=group)  # one process has the label, the others add nothing
        totals = torch.stack(parts).logsumexp(0)  # (M,) log of the normalisers
        start = sum(counts[: group.rank()])
        ctx.mine, ctx.counts = slice(start, start + len(hidden)), counts
        ctx.tables, ctx.dtype = (weight, bias), hidden.dtype
        ctx.save_for_backward(states, wanted, totals)
        return (totals - chosen)[ctx.mine]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        states, wanted, totals = ctx.saved_tensors
        weight, bias = ctx.tables
        scales, _ = gather_batches(scale, group_of(weight))  # (M,)
        local, own = own_slice(weight), owned_rows(len(weight), weight.device_mesh)
        to_states, to_local = torch.zeros_like(states), torch.zeros_like(local, dtype=states.dtype)
        to_bias = None if bias is None else local.new_zeros(len(local))
        for rows, logits in _logits(states, weight, bias):
            gradient = logits.sub_(totals[rows, None]).exp_()  # (R, V/P) probabilities
            here, places = _owned(wanted[rows], own)
            gradient[here, places] -= 1
            gradient *= scales[rows, None]
            to_states[rows] = gradient @ local.float()
            to_local.addmm_(gradient.T, states[rows])
            if to_bias is not None:
                to_bias += gradient.sum(0)
        distributed.all_reduce(to_states, group=group_of(weight))
        ids = torch.arange(own.start, own.stop, device=local.device)
        of_bias = None if to_bias is None else sparse_gradient(bias, ids, to_bias)
        return to_states[ctx.mine].to(ctx.dtype), sparse_gradient(weight, ids, to_local), of_bias, None


def _logits(states: Tensor, weight: DTensor, bias: DTensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Give the logits of the owned items a few states at a time: which states, (R, V/P) in float32."""
    local = own_slice(weight).float()
    at_once = max(_LEAST_ROWS, _CHUNK_ELEMENTS // max(1, len(local)))
    for start in range(0, len(states), at_once):
        rows = slice(start, start + at_once)
        logits = states[rows] @ local.T
        yield rows, logits if bias is None else logits.add_(own_slice(bias).float())


def _owned(labels: Tensor, own: range) -> tuple[Tensor, Tensor]:
    """Give the places of the labels that this process owns, and their columns in its logits."""
    here = ((labels >= own.start) & (labels < own.stop)).nonzero().squeeze(1)
    return here, labels[here] - own.start
