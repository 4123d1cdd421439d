"""A softmax over the label and a sample of the catalogue."""

import math
from typing import Literal

import torch
from torch import Tensor

from recbert.objectives.losses.negatives import Negatives
from recbert.objectives.losses.samplers import Sampler
from recbert.objectives.losses.seen import score_seen


class SampledSoftmax:
    """Negative log-likelihood under a softmax over the label and items drawn as negatives.

    `-log exp(s_y) / (exp(s_y) + sum_j exp(s_j) / (S q_j))` with the S draws `j` of the sampler, draws of the
    label itself left out and `q_j` the probability of drawing item j: the sum in the denominator estimates
    that of the full softmax over the items without bias. The cost grows with N x S instead of N x V; below
    some 100,000 items its sibling `FullSoftmax` is exact and costs little; `GBCE` asks of each item alone
    whether it comes next. Source: Bengio and Senecal,
    "Adaptive importance sampling to accelerate training of a neural probabilistic language model", 2008;
    negatives shared by a batch and the correction by log q as in Yi et al., "Sampling-bias-corrected neural
    modeling for large corpus item recommendations", 2019.

    With `seen_margin` m the denominator also holds `exp(s_k + m)` for each earlier label k of the sequence
    but the label itself: what was taken has to stay m nats further behind than what was not.

    Args:
        negatives: draws a batch or a sequence, at least 1.
        sampler: where they come from.
        per: whether the draws are shared by a `batch` or by the positions of a `sequence`, see `Negatives`.
        seen_margin: m, for lists from which seen items are not filtered, of things that nobody takes twice;
            None to treat them as any other item. It needs labels in the order of events.

    Raises:
        ValueError: `negatives` is below 1, or not below the number of items, or `per` is unknown.
    """

    def __init__(
        self,
        negatives: int = 256,
        *,
        sampler: Sampler,
        per: Literal["batch", "sequence"] = "batch",
        seen_margin: float | None = None,
    ) -> None:
        self._negatives = Negatives(negatives, sampler, per)
        self._seen_margin = seen_margin

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
            rows: (N,) the sequence of each label, see `Negatives.score`.

        Returns:
            A scalar in float32 (float64 for float64 input), in nats.

        Raises:
            ValueError: seen items are to be held down and `rows` is None.
        """
        positive, negative, log_q = self._negatives.score(hidden, weight, bias, labels, rows)
        others = (negative - (math.log(self._negatives.count) + log_q)).logsumexp(1)
        if self._seen_margin is not None:
            if rows is None:
                raise ValueError("seen_margin is set, which needs the rows that `labelled` gives")
            seen = score_seen(hidden, weight, bias, labels, rows).logsumexp(1)
            others = torch.logaddexp(others, seen + self._seen_margin)
        total: Tensor = (torch.logaddexp(positive, others) - positive).sum()
        return total
