"""A softmax over the label and a sample of the catalogue."""

import math

import torch
from torch import Tensor

from recbert.objectives.losses.rows import take_rows
from recbert.objectives.losses.samplers import Sampler


class SampledSoftmax:
    """Negative log-likelihood under a softmax over the label and items drawn for the whole batch.

    `-log exp(s_y) / (exp(s_y) + sum_j exp(s_j) / (S q_j))` with the S draws `j` of the sampler, draws of the
    label itself left out and `q_j` the probability of drawing item j: the sum in the denominator estimates
    that of the full softmax over the items without bias. The cost grows with N x S instead of N x V; below
    some 100,000 items its sibling `FullSoftmax` is exact and costs little. Source: Bengio and Senecal,
    "Adaptive importance sampling to accelerate training of a neural probabilistic language model", 2008;
    negatives shared by a batch and the correction by log q as in Yi et al., "Sampling-bias-corrected neural
    modeling for large corpus item recommendations", 2019.

    Args:
        negatives: draws a batch, at least 1.
        sampler: where they come from.

    Raises:
        ValueError: `negatives` is below 1, or not below the number of items.
    """

    def __init__(self, negatives: int = 256, *, sampler: Sampler) -> None:
        if not 1 <= negatives < sampler.num_items:
            raise ValueError(
                f"negatives is {negatives} and the catalogue has {sampler.num_items} items: give at least 1 "
                "and fewer than the items, or use the full softmax"
            )
        self.negatives = negatives
        self.sampler = sampler

    def __call__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        """Give the sum over the labelled positions.

        Args:
            hidden: (N, D) hidden states.
            weight: (V, D) item matrix.
            bias: (V,) or None.
            labels: (N,) token ids.

        Returns:
            A scalar in float32, in nats.
        """
        drawn, log_q = self.sampler.draw(self.negatives, labels.device)  # (S,)
        ids = torch.cat([labels, drawn])
        rows = take_rows(weight, ids).to(hidden.dtype)
        positive = (hidden * rows[: len(labels)]).sum(1).float()  # (N,)
        negative = (hidden @ rows[len(labels) :].T).float()  # (N, S)
        if bias is not None:
            values = take_rows(bias, ids).float()
            positive, negative = positive + values[: len(labels)], negative + values[len(labels) :]
        negative = negative - (math.log(self.negatives) + log_q)
        negative = negative.masked_fill(drawn == labels[:, None], -torch.inf)
        total: Tensor = (torch.logaddexp(positive, negative.logsumexp(1)) - positive).sum()
        return total
