"""Fused kernels for the full softmax on CUDA, where a package that has them is installed."""

import inspect
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]
"""Takes hidden, weight, bias and labels as `FullSoftmax` does, all in one dtype; gives the summed losses."""

_LIGER_CHUNK_ELEMENTS = 2**26


def find_kernel(device: torch.device, dtype: torch.dtype, *, with_bias: bool) -> Kernel | None:
    """Find a fused kernel for tensors of this kind.

    cut-cross-entropy keeps no logits in memory at all, but takes half precision only and, in its released
    version, no bias; liger-kernel takes everything. Both come with `pip install 'recbert[kernels]'`.

    Args:
        device: where the tensors are; nothing is imported unless it is a CUDA device.
        dtype: of the products.
        with_bias: whether there is a bias.

    Returns:
        The kernel; None where there is none.
    """
    if device.type != "cuda":
        return None
    fits = dtype == torch.bfloat16 and not with_bias  # products are never in float16, see `product_dtype`
    if fits and _function("cut_cross_entropy", "linear_cross_entropy") is not None:
        return _cut_cross_entropy
    if _function("liger_kernel.transformers.functional", "liger_fused_linear_cross_entropy") is not None:
        return _liger
    return None


def _cut_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    function = _function("cut_cross_entropy", "linear_cross_entropy")
    # Its filter drops gradients below 2^-12, which most items of a large catalogue have.
    total: Tensor = function(hidden, weight, labels, reduction="sum", filter_eps=None)
    return total


def _liger(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    function = _function("liger_kernel.transformers.functional", "liger_fused_linear_cross_entropy")
    # It sizes its chunks for wide models, N x D logits at once: a few rows where D is 64 and V a million.
    options: dict[str, Any] = {"chunk_mem_const": max(1, _LIGER_CHUNK_ELEMENTS // hidden.numel())}
    known = inspect.signature(function).parameters
    options = {name: value for name, value in options.items() if name in known}
    total: Tensor = function(
        hidden, weight, labels, bias, reduction="sum", accum_dtype=torch.float32, **options
    )
    return total


@cache
def _function(module: str, name: str) -> Any:
    """Import a function; None if its package is not there."""
    try:
        return getattr(import_module(module), name)
    except ImportError:
        return None
