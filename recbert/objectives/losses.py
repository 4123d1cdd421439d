"""Losses over labelled positions only; each gives a sum, which the caller divides by the number of labels."""

import torch
from torch import Tensor
from torch.nn import functional


def full_softmax(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """Sum of the negative log-likelihoods under a softmax over the whole vocabulary.

    `sum_n -log softmax(hidden_n @ weight.T + bias)[labels_n]`. Exact, and the right choice up to about
    100,000 items; the cost grows with N x V.

    Args:
        hidden: (N, D) hidden states of the labelled positions.
        weight: (V, D) rows of the item matrix.
        bias: (V,) or None.
        labels: (N,) token ids.

    Returns:
        A scalar in fp32, in nats.
    """
    weight, bias = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
    if hasattr(functional, "linear_cross_entropy"):  # torch >= 2.13
        return functional.linear_cross_entropy(
            hidden, weight, labels, linear_bias=bias, reduction="sum"
        ).float()
    logits = functional.linear(hidden, weight, bias)  # (N, V)
    return functional.cross_entropy(logits.float(), labels, reduction="sum")


def labelled(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gather the labelled positions.

    Args:
        hidden: (B, L, D) hidden states.
        labels: (B, L) token ids, -100 where there is no label.

    Returns:
        hidden: (N, D).
        labels: (N,).
    """
    places = torch.nonzero(labels.flatten() != -100).squeeze(1)  # (N,)
    return hidden.flatten(0, 1)[places], labels.flatten()[places]
