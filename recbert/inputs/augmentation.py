"""Training sequences changed at random: cropped, reordered, with events hidden."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from recbert.inputs.draws import uniform
from recbert.inputs.padding import present_places, ranges
from recbert.inputs.training import TrainBatch

_MOST_REORDERED = 5
"""Events of a shuffled range at most: within that many, order is often chance; over more it is the signal."""

_CROP, _REORDER, _HIDE = 1, 2, 3
"""Purposes of the random numbers; 0 is that of the masks of masked-item training."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training sequences are changed at random, in each epoch in another way.

    What happens to a row depends on the seed, the epoch and the row's number alone. Source: Xie et al.,
    "Contrastive Learning for Sequential Recommendation", 2022, which compares such copies of a sequence with
    each other; here they are what is learnt from.

    Attributes:
        crop: share of rows of which only a part is used: it ends at a random target and begins at a random
            event before it.
        mask: `next-item`: share of input events that are replaced by `[MASK]`; they stay labels.
        reorder: share of rows in which two to five neighbouring events, never the last one, change places.

    Raises:
        ValueError: a share outside its range.
    """

    crop: float = 0.0
    mask: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1 or (field.name == "mask" and value == 1):
                raise ValueError(
                    f"augmentation.{field.name} is {value}: it must be from 0 to 1"
                    + (", and below 1" if field.name == "mask" else "")
                )

    def rearrange(self, batch: TrainBatch) -> TrainBatch:
        """Crop and reorder sequences.

        Args:
            batch: B sequences, as long as they are stored.
        """
        if self.crop:
            batch = _crop(batch, self.crop)
        if self.reorder:
            batch = _reorder(batch, self.reorder)
        return batch

    def hidden(self, batch: TrainBatch) -> NDArray[np.bool_]:
        """Say which events are replaced by `[MASK]` where they are inputs, (T,).

        Args:
            batch: sequences cut to their final length.
        """
        if not self.mask:
            return np.zeros(len(batch.tokens), dtype=np.bool_)
        present = present_places(batch.lengths)  # (B, L)
        # Counted from the end, so that it makes no difference whether the start was cut off.
        places = batch.lengths[:, None] - np.arange(present.shape[1])
        hidden: NDArray[np.bool_] = (uniform(batch, places, _HIDE) < self.mask)[present]
        return hidden


def _crop(batch: TrainBatch, share: float) -> TrainBatch:
    """Cut a share of the rows to a random contiguous part that has a target with something before it."""
    draws = uniform(batch, np.arange(3)[None], _CROP)  # (B, 3)
    ends = np.cumsum(batch.lengths)
    starts = ends - batch.lengths
    owners = np.repeat(np.arange(len(starts)), batch.lengths)
    places = np.arange(len(batch.tokens)) - starts[owners]
    eligible = np.flatnonzero(batch.is_target & (places > 0))  # (E,) in the order of the rows
    counts = np.bincount(owners[eligible], minlength=len(starts))
    rows = np.flatnonzero((draws[:, 0] < share) & (counts > 0))
    chosen = np.cumsum(counts)[rows] - counts[rows] + (draws[rows, 1] * counts[rows]).astype(np.int64)
    last = places[eligible[chosen]]
    first = (draws[rows, 2] * last).astype(np.int64)
    begin, lengths = np.zeros_like(starts), batch.lengths.copy()
    begin[rows], lengths[rows] = first, last - first + 1
    cropped = batch.take(ranges(starts + begin, lengths), lengths)
    # It does not follow from the start of the history any more.
    cropped.is_target[(np.cumsum(lengths) - lengths)[begin > 0]] = False
    return cropped


def _reorder(batch: TrainBatch, share: float) -> TrainBatch:
    """Shuffle the items of a short range in a share of the rows; times and marks stay where they are."""
    draws = uniform(batch, np.arange(3 + _MOST_REORDERED)[None], _REORDER)  # (B, 3 + R)
    rows = np.flatnonzero((draws[:, 0] < share) & (batch.lengths > 2))
    most = np.minimum(_MOST_REORDERED, batch.lengths[rows] - 1)
    sizes = 2 + (draws[rows, 1] * (most - 1)).astype(np.int64)
    starts = np.cumsum(batch.lengths)[rows] - batch.lengths[rows]
    starts = starts + (draws[rows, 2] * (batch.lengths[rows] - sizes)).astype(np.int64)
    in_range = np.arange(_MOST_REORDERED) < sizes[:, None]
    order = np.argsort(np.where(in_range, draws[rows, 3:], np.inf), axis=1)[in_range]
    places = np.arange(len(batch.tokens))
    places[ranges(starts, sizes)] = np.repeat(starts, sizes) + order
    return batch._replace(tokens=batch.tokens[places])
