"""The softmax over the whole vocabulary."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from recbert.objectives.losses.chunked import chunked_cross_entropy, product_dtype
from recbert.objectives.losses.kernels import find_kernel
from recbert.objectives.losses.rows import take_rows
from recbert.sharding import sharded_cross_entropy
from recbert.tokenizer import FIRST_ITEM_ID


@dataclass(frozen=True)
class FullSoftmax:
    """Negative log-likelihood under a softmax over the whole vocabulary.

    `sum_n -log softmax(hidden_n @ weight.T + bias)[labels_n]`. Exact, and the right choice up to about
    100,000 items; the cost grows with N x V, the memory with V. Its sibling `SampledSoftmax` costs the same
    for any V, `GBCE` as well. On CUDA a fused kernel computes it where one is installed, see `find_kernel`.

    With `label_smoothing` e the label has the probability 1 - e of the target and e is spread over all items
    alike (special tokens, which are never an answer, get none of it):
    `sum_n [-(1 - e) log p(y_n) - e / V_items sum_j log p(j)]`. It keeps a model from becoming sure of rare
    pairs; try 0.1 where training overfits long before its last epoch. Source: Szegedy et al., "Rethinking the
    Inception architecture for computer vision", 2016.

    Args:
        label_smoothing: e, from 0 to below 1.

    Raises:
        ValueError: `label_smoothing` is out of range.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}: it must be from 0 to below 1")

    def __call__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Give the sum over the labelled positions.

        Args:
            hidden: (N, D) hidden states.
            weight: (V, D) item matrix.
            bias: (V,) or None.
            labels: (N,) token ids.
            rows: (N,) the sequence of each label; all items take part, whosoever they are.

        Returns:
            A scalar in float32 (float64 for float64 input), in nats. Its gradient can be taken once.

        Raises:
            ValueError: labels are to be smoothed and the item matrix is split over processes.
        """
        if isinstance(weight, DTensor):
            if self.label_smoothing:
                raise ValueError(
                    f"label_smoothing is {self.label_smoothing} and shard_items is on: a split item table "
                    "has no mean row at hand, leave one of them out"
                )
            return sharded_cross_entropy(hidden, weight, cast("DTensor | None", bias), labels)
        loss = self._likelihood(hidden, weight, bias, labels)
        if self.label_smoothing and len(labels):
            loss = loss + self.label_smoothing * _label_beyond_mean(hidden, weight, bias, labels)
        return loss

    def _likelihood(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        """Give the loss without smoothing."""
        dtype = product_dtype(hidden)
        kernel = find_kernel(hidden.device, dtype, with_bias=bias is not None) if len(labels) else None
        if kernel is None:
            return chunked_cross_entropy(hidden, weight, bias, labels, dtype)
        bias = None if bias is None else bias.to(dtype)
        return kernel(hidden.to(dtype), weight.to(dtype), bias, labels).float()


def _label_beyond_mean(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """Sum, over the labels, the logit of the label minus the mean logit of all items.

    Smoothing adds just that, times e: the normaliser is in every term alike and the rest is linear in the
    logits, so that the mean row stands for all items and no logit is computed.
    """
    precise = torch.promote_types(hidden.dtype, torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        mean = weight[FIRST_ITEM_ID:].mean(0, dtype=precise)  # (D,)
        total = (hidden.to(precise) * (take_rows(weight, labels).to(precise) - mean)).sum()
        if bias is not None:
            common = bias[FIRST_ITEM_ID:].mean(dtype=precise)
            total = total + (take_rows(bias, labels).to(precise) - common).sum()
    return total
