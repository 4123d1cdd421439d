"""The order of training rows: the same for any number of processes."""

from collections.abc import Iterator
from typing import Literal, cast

import numpy as np
import torch

from recbert.inputs import FILLER, Draw, TokenIds

Order = Literal["group_by_length", "random", "sequential"]

_BATCHES_IN_GROUP = 50


class RowSampler(torch.utils.data.Sampler[Draw]):
    """Rows in an order that depends on seed and epoch alone.

    With `group_by_length` the rows are shuffled, sorted by length within groups of fifty batches, and the
    batches shuffled, so that a batch holds rows of similar length. The samplers of transformers group within
    the batch of one process and draw from the global random state; with this one several processes see the
    batches that one sees, and a resumed run those of the uninterrupted one.

    Where several processes share the last batch, rows without a target fill it up: accelerate would repeat
    rows from the epoch's start, which would then count twice in the loss.

    Args:
        lengths: (N,) length of each row.
        batch_size: rows in one optimiser step over all processes.
        seed: with the epoch, decides the order.
        order: `group_by_length`, `random` or `sequential`.
        multiple: the epoch is filled up to a multiple of so many rows.
    """

    def __init__(
        self,
        lengths: TokenIds,
        batch_size: int,
        seed: int,
        *,
        order: Order = "group_by_length",
        multiple: int = 1,
    ) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._order, self._multiple = order, multiple
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch.

        Args:
            epoch: counted from 0.
        """
        self._epoch = epoch

    def __len__(self) -> int:
        """Give the number of rows, those that fill up included."""
        return -(-len(self._lengths) // self._multiple) * self._multiple

    def __iter__(self) -> Iterator[Draw]:
        """Give the rows of the current epoch."""
        rows = self._rows()
        fillers = [FILLER] * (len(self) - len(rows))
        return (Draw(row, self._epoch) for row in (*rows, *fillers))

    def _rows(self) -> list[int]:
        """Give all row numbers in the order of the current epoch."""
        if self._order == "sequential":
            return list(range(len(self._lengths)))
        random = np.random.default_rng((self._seed, self._epoch))
        order = random.permutation(len(self._lengths))
        if self._order == "random":
            return cast("list[int]", order.tolist())
        whole = len(order) // self._batch_size * self._batch_size
        batches: list[TokenIds] = []
        for group in np.split(order[:whole], range(0, whole, _BATCHES_IN_GROUP * self._batch_size)):
            group = group[np.argsort(-self._lengths[group], kind="stable")]
            batches.extend(group.reshape(-1, self._batch_size))
        shuffled = [batches[batch] for batch in random.permutation(len(batches))]
        return cast("list[int]", np.concatenate([*shuffled, order[whole:]]).tolist())
