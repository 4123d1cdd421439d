"""Cross-entropy over the whole vocabulary, a few rows at a time: the logits never exist together."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# On a CPU the products reach their full rate from 64 rows on in float32 and from 128 in bfloat16; more rows
# gain nothing, so beyond that a chunk only grows as long as it stays in the second-level cache. At 100,000
# items and above more rows would be some 8 % faster, for twice the memory.
_LEAST_ROW_BYTES = 256
_CPU_CHUNK_BYTES = 2**20
_GPU_CHUNK_BYTES = 2**28  # there a chunk must only be large beside the launch of its kernels


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, dtype: torch.dtype
) -> Tensor:
    """Sum of `-log softmax(hidden_n @ weight.T + bias)[labels_n]` and, on the way, its gradients.

    The gradient of a chunk is made while its probabilities are in the cache: three matrix products, nothing
    is computed twice, and beside the gradients only `rows x V` numbers are held. Sums over rows are kept in
    float32.

    Args:
        hidden: (N, D).
        weight: (V, D).
        bias: (V,) or None.
        labels: (N,) token ids.
        dtype: of the products, see `product_dtype`.

    Returns:
        A scalar in float32 (float64 for float64 input), in nats. Its gradient can be taken once.
    """
    apply: Any = _ChunkedCrossEntropy.apply
    loss: Tensor = apply(hidden, weight, bias, labels, dtype, torch.is_grad_enabled())
    return loss


def product_dtype(hidden: Tensor) -> torch.dtype:
    """Give the dtype of the matrix products: the autocast dtype, else that of `hidden`.

    float16, whose smallest number is above the probabilities of a large catalogue, becomes float32.

    Args:
        hidden: (N, D).
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    return torch.float32 if dtype == torch.float16 else dtype


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Makes the gradients in the forward pass; the backward pass only scales them."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        dtype: torch.dtype,
        with_gradients: bool,
    ) -> Tensor:
        wanted = [with_gradients and needed for needed in ctx.needs_input_grad[:3]]
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (hidden, weight, bias)]
        with torch.autocast(hidden.device.type, enabled=False):
            loss, *ctx.gradients = _loss_and_gradients(
                hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype), labels, wanted
            )
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        if ctx.gradients is None:
            raise RuntimeError("the gradient of this loss was taken already: compute the loss again")
        gradients, ctx.gradients = ctx.gradients, None
        # In place: a second table of gradients may not fit, and this one becomes the parameter's own.
        scaled = [None if gradient is None else gradient.mul_(scale) for gradient in gradients]
        pairs = zip(scaled, ctx.dtypes, strict=True)
        return (
            *(None if gradient is None else gradient.to(dtype) for gradient, dtype in pairs),
            None,
            None,
            None,
        )


def _loss_and_gradients(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Give the loss and the wanted ones of the gradients of hidden, weight and bias."""
    precise = torch.promote_types(hidden.dtype, torch.float32)
    chosen = hidden.new_empty(len(hidden))  # (N,) probabilities of the labels
    to_hidden = torch.empty_like(hidden, dtype=precise) if wanted[0] else None
    to_weight = torch.zeros_like(weight, dtype=precise) if wanted[1] else None
    to_bias = weight.new_zeros(len(weight), dtype=precise) if wanted[2] else None
    for start, stop, probabilities in _chunks(hidden, weight, bias):  # (R, V)
        rows = hidden[start:stop]
        chosen[start:stop] = probabilities.gather(1, labels[start:stop, None]).squeeze(1)
        if to_hidden is not None:
            to_hidden[start:stop] = probabilities @ weight
        if to_weight is not None and precise == weight.dtype:
            to_weight.addmm_(probabilities.T, rows)
        elif to_weight is not None:
            to_weight.add_(probabilities.T @ rows)
        if to_bias is not None:
            to_bias += probabilities.sum(0, dtype=precise)
    # The gradient of a logit is its probability, less one at the label.
    if to_hidden is not None:
        to_hidden -= weight[labels]
    if to_weight is not None:
        to_weight.index_add_(0, labels, hidden.to(precise), alpha=-1)
    if to_bias is not None:
        to_bias.index_add_(0, labels, to_bias.new_full((len(labels),), -1))
    return _sum_of_losses(chosen.to(precise), hidden, weight, bias, labels), to_hidden, to_weight, to_bias


def _chunks(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[int, int, Tensor]]:
    """Give the softmax over the vocabulary a few rows at a time: start, stop, (R, V).

    All chunks share one buffer: use one up before taking the next.
    """
    size, on_cpu = len(weight), hidden.device.type == "cpu"
    at_once = _rows_at_once(size, hidden.dtype.itemsize, on_cpu)
    width = _row_width(size)
    buffer = hidden.new_empty(min(at_once, len(hidden)), width)
    for start in range(0, len(hidden), at_once):
        stop = min(start + at_once, len(hidden))
        wide = buffer[: stop - start]
        logits = wide[:, :size]
        if bias is None:
            torch.mm(hidden[start:stop], weight.T, out=logits)
        else:
            torch.addmm(bias, hidden[start:stop], weight.T, out=logits)
        wide[:, size:] = -torch.inf
        # In place on a CPU, where each row is read before it is written; a GPU promises no order.
        wide = torch.softmax(wide, 1, out=wide if on_cpu else None)
        yield start, stop, wide[:, :size]


def _rows_at_once(size: int, itemsize: int, on_cpu: bool) -> int:
    """Give the number of rows of a chunk for a vocabulary of `size`."""
    chunk = _CPU_CHUNK_BYTES if on_cpu else _GPU_CHUNK_BYTES
    return max(_LEAST_ROW_BYTES // itemsize, chunk // (size * itemsize))


def _row_width(size: int) -> int:
    """Give the width of a buffer row: whole cache lines, and not a page's multiple.

    Both make the matrix products faster on a CPU, by up to a third: misaligned rows cost extra loads, and
    rows that start at the same place of a page fall into the same few sets of the cache.
    """
    width = -(-size // 32) * 32
    return width + 32 if width % 1024 == 0 else width


def _sum_of_losses(
    chosen: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor
) -> Tensor:
    """Sum `-log` of the labels' probabilities; where one is too small for its dtype, from the logits."""
    lost = torch.nonzero(chosen < torch.finfo(chosen.dtype).tiny).squeeze(1)
    losses = -chosen.log()
    parts: tuple[Tensor, ...] = torch.split(lost, _rows_at_once(len(weight), chosen.dtype.itemsize, True))
    for part in parts:
        logits = functional.linear(hidden[part], weight, bias)  # (R, V)
        losses[part] = functional.cross_entropy(logits.to(chosen.dtype), labels[part], reduction="none")
    return losses.sum()
