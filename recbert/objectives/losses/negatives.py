"""Scores of the label and of items drawn as negatives, which the sampled losses compare."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from recbert.objectives.losses.rows import side_by_side, take_rows
from recbert.objectives.losses.samplers import Sampler


class Scores(NamedTuple):
    """What a sampled loss compares, in float32 (float64 for float64 input).

    Attributes:
        positive: (N,) score of the label.
        negative: (N, S) scores of the draws; -inf where a draw is no negative of that label.
        log_q: (S,) or (N, S) natural logarithm of the probability of each draw.
    """

    positive: Tensor
    negative: Tensor
    log_q: Tensor


@dataclass(frozen=True)
class Negatives:
    """Items drawn as negatives.

    A draw of the label itself is left out. Where the sampler draws from the batch, or where each sequence has
    its own draws, so are the other labels of the same sequence: they are items the user did choose.

    Args:
        count: draws a batch or a sequence, at least 1.
        sampler: where they come from.
        per: one set of draws for the whole `batch`, or one for each `sequence`, shared by its positions. The
            second sees B times as many items a step for B times as many rows of the table to read.

    Raises:
        ValueError: `count` is below 1, or not below the number of items, or `per` is unknown.
    """

    count: int
    sampler: Sampler
    per: Literal["batch", "sequence"] = "batch"

    def __post_init__(self) -> None:
        """Check the range."""
        if not 1 <= self.count < self.sampler.num_items:
            raise ValueError(
                f"negatives is {self.count} and the catalogue has {self.sampler.num_items} items: give at "
                "least 1 and fewer than the items, or use the full softmax"
            )
        if self.per not in ("batch", "sequence"):
            raise ValueError(f"negatives_per is {self.per!r}: it must be 'batch' or 'sequence'")

    def score(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, rows: Tensor | None
    ) -> Scores:
        """Draw negatives and score them beside the labels.

        Args:
            hidden: (N, D) hidden states.
            weight: (V, D) item matrix.
            bias: (V,) or None.
            labels: (N,) token ids.
            rows: (N,) the sequence of each label, ascending, as `labelled` gives them; None where it is not
                known, and then only the label itself is left out.

        Raises:
            ValueError: each sequence is to have its own draws and `rows` is None.
        """
        if self.per == "sequence":
            if rows is None:
                raise ValueError("negatives_per is 'sequence', which needs the rows that `labelled` gives")
            return self._score_by_sequence(hidden, weight, bias, labels, rows)
        drawn, log_q = self.sampler.draw(self.count, labels)  # (S,)
        items, values = _take(weight, bias, torch.cat([labels, drawn]), hidden)
        positive = _own_scores(hidden, items[: len(labels)], values, labels)
        negative = _precise(hidden @ items[len(labels) :].T)  # (N, S)
        if values is not None:
            negative = negative + values[len(labels) :]
        refused = drawn == labels[:, None]
        if rows is not None and self.sampler.from_batch:
            refused = refused | _chosen(drawn.expand(_groups(rows), -1), labels, rows)[rows]
        return Scores(positive, negative.masked_fill(refused, -torch.inf), log_q)

    def _score_by_sequence(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, rows: Tensor
    ) -> Scores:
        groups = _groups(rows)
        drawn, log_q = self.sampler.draw(groups * self.count, labels)
        items, values = _take(weight, bias, torch.cat([labels, drawn]), hidden)
        positive = _own_scores(hidden, items[: len(labels)], values, labels)
        drawn, log_q = drawn.view(groups, self.count), log_q.view(groups, self.count)  # (B, S)
        shape, place = side_by_side(rows)
        wide = hidden.new_zeros(*shape, hidden.shape[1]).index_put((rows, place), hidden)  # (B, M, D)
        scores = wide @ items[len(labels) :].view(groups, self.count, hidden.shape[1]).mT  # (B, M, S)
        negative = _precise(scores[rows, place])  # (N, S)
        if values is not None:
            negative = negative + values[len(labels) :].view(groups, self.count)[rows]
        refused = _chosen(drawn, labels, rows)[rows]
        return Scores(positive, negative.masked_fill(refused, -torch.inf), log_q[rows])


def _take(weight: Tensor, bias: Tensor | None, ids: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
    """Give rows of the item matrix in the dtype of the hidden states, and precise values of the bias."""
    values = None if bias is None else _precise(take_rows(bias, ids))
    return take_rows(weight, ids).to(hidden.dtype), values


def _own_scores(hidden: Tensor, items: Tensor, values: Tensor | None, labels: Tensor) -> Tensor:
    """Score each label at its own position, (N,)."""
    positive = _precise((hidden * items).sum(1))
    return positive if values is None else positive + values[: len(labels)]


def _precise(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _groups(rows: Tensor) -> int:
    """Give the number of sequences up to the last that has a label."""
    return int(rows[-1]) + 1 if len(rows) else 0


def _chosen(drawn: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """Mark the draws (B, S) that are a label of their sequence."""
    size = max(int(drawn.max()), int(labels.max())) + 1 if len(labels) else 1
    first = torch.arange(len(drawn), device=drawn.device)[:, None] * size  # (B, 1)
    return torch.isin(first + drawn, rows * size + labels)
