"""The softmax over the whole vocabulary."""

from dataclasses import dataclass
from typing import cast

from torch import Tensor
from torch.distributed.tensor import DTensor

from recbert.objectives.losses.chunked import chunked_cross_entropy, product_dtype
from recbert.objectives.losses.kernels import find_kernel
from recbert.sharding import sharded_cross_entropy


@dataclass(frozen=True)
class FullSoftmax:
    """Negative log-likelihood under a softmax over the whole vocabulary.

    `sum_n -log softmax(hidden_n @ weight.T + bias)[labels_n]`. Exact, and the right choice up to about
    100,000 items; the cost grows with N x V, the memory with V. Its sibling `SampledSoftmax` costs the same
    for any V. On CUDA a fused kernel computes it where one is installed, see `find_kernel`.
    """

    def __call__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        """Give the sum over the labelled positions.

        Args:
            hidden: (N, D) hidden states.
            weight: (V, D) item matrix.
            bias: (V,) or None.
            labels: (N,) token ids.

        Returns:
            A scalar in float32, in nats. Its gradient can be taken once.
        """
        if isinstance(weight, DTensor):
            return sharded_cross_entropy(hidden, weight, cast("DTensor | None", bias), labels)
        dtype = product_dtype(hidden)
        kernel = find_kernel(hidden.device, dtype, with_bias=bias is not None) if len(labels) else None
        if kernel is None:
            return chunked_cross_entropy(hidden, weight, bias, labels, dtype)
        bias = None if bias is None else bias.to(dtype)
        return kernel(hidden.to(dtype), weight.to(dtype), bias, labels).float()
