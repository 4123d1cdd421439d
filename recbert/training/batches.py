"""Which rows stand together in a batch, and in which order: the same for any number of processes."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recbert.inputs import Draw, TokenIds

Order = Literal["group_by_length", "random", "sequential"]

_STEPS_IN_GROUP = 50


class BatchShape(NamedTuple):
    """How much goes into a batch.

    Attributes:
        rows: rows in the batch of one process at most.
        tokens: padded events in it at most, rows times the longest row; 0 for no limit.
        processes: processes that share an epoch.
        accumulated: batches of a process in one optimiser step.
    """

    rows: int
    tokens: int = 0
    processes: int = 1
    accumulated: int = 1

    @property
    def rows_of_group(self) -> int:
        """Give the rows that are grouped by length among themselves: those of fifty optimiser steps."""
        return _STEPS_IN_GROUP * self.rows_of_step

    @property
    def rows_of_step(self) -> int:
        """Give the rows of one optimiser step over all processes."""
        return self.rows * self.processes * self.accumulated


class BatchPlan(torch.utils.data.Sampler[Draw]):
    """The batches of an epoch, in an order that depends on seed and epoch alone.

    With `group_by_length` the rows are shuffled, sorted by length within groups of fifty optimiser steps, cut
    into steps, and the steps shuffled, so that a batch holds rows of similar length. Under a token budget all
    rows are sorted by length, rows of one length in random order, and cut where the budget ends; the batches
    are shuffled. The samplers of transformers group within the batch of one process and draw from the global
    random state; with this one several processes see the batches that one sees, and a run resumed in the
    middle of an epoch sees those of the uninterrupted one.

    Batches go to the processes in turn. Where the last turn has too few, the others get a `Draw` without
    rows: accelerate would repeat rows from the epoch's start, which would then count twice in the loss.

    Args:
        lengths: (N,) events of each row.
        shape: what goes into a batch.
        seed: with the epoch, decides the order.
        order: `group_by_length`, `random` or `sequential`.
        process: the process, from 0, whose share is given.
        drop_last: leave out the batches of the last turn when not all processes have a full one.

    Raises:
        ValueError: the token budget is smaller than the longest row, or set for another order.
    """

    def __init__(
        self,
        lengths: NDArray[Any],
        shape: BatchShape,
        seed: int,
        *,
        order: Order = "group_by_length",
        process: int = 0,
        drop_last: bool = False,
    ) -> None:
        if shape.tokens:
            longest = int(lengths.max(initial=0))
            if shape.tokens < longest:
                raise ValueError(
                    f"max_tokens_per_batch is {shape.tokens}, but the longest training sequence has "
                    f"{longest} events: give at least {longest}, or prepare the data with a smaller "
                    "max_length"
                )
            if order != "group_by_length":
                raise ValueError(
                    f"max_tokens_per_batch is {shape.tokens} and train_sampling_strategy {order!r}: a token "
                    "budget needs 'group_by_length'"
                )
        self._lengths, self._shape, self._seed = lengths, shape, seed
        self._order, self._process, self._drop_last = order, process, drop_last
        self._epoch = 0
        if shape.tokens:
            # Sorted lengths are the same in every epoch, and so are the places where batches end.
            self._bounds = _cut_by_tokens(np.sort(lengths)[::-1], shape.rows, shape.tokens)
        else:
            self._bounds = np.append(np.arange(0, len(lengths), shape.rows), len(lengths))

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch.

        Args:
            epoch: counted from 0.
        """
        self._epoch = epoch

    def __len__(self) -> int:
        """Give the number of batches of one process in an epoch."""
        batches = len(self._bounds) - 1
        if self._drop_last and not self._shape.tokens:
            return len(self._lengths) // (self._shape.rows * self._shape.processes)
        return -(-batches // self._shape.processes)

    def __iter__(self) -> Iterator[Draw]:
        """Give this process's batches of the current epoch."""
        random = np.random.default_rng((self._seed, self._epoch))
        rows = self._rows(random)
        batches = len(self._bounds) - 1
        numbers = random.permutation(batches) if self._shape.tokens else np.arange(batches)
        processes = self._shape.processes
        for place in range(self._process, len(self) * processes, processes):
            start = end = 0
            if place < batches:
                start, end = self._bounds[numbers[place]], self._bounds[numbers[place] + 1]
            yield Draw(rows[start:end], self._epoch)

    def _rows(self, random: np.random.Generator) -> TokenIds:
        """Give all row numbers in the order of the current epoch."""
        if self._order == "sequential":
            return np.arange(len(self._lengths))
        order = random.permutation(len(self._lengths))
        if self._order == "random":
            return order
        if self._shape.tokens:
            return order[np.argsort(-self._lengths[order], kind="stable")]
        step = self._shape.rows_of_step
        whole = len(order) // step * step
        batches: list[TokenIds] = []
        for group in np.split(order[:whole], range(0, whole, self._shape.rows_of_group)):
            group = group[np.argsort(-self._lengths[group], kind="stable")]
            batches.extend(group.reshape(-1, step))
        shuffled = [batches[batch] for batch in random.permutation(len(batches))]
        return np.concatenate([*shuffled, order[whole:]])


def _cut_by_tokens(lengths: NDArray[Any], most_rows: int, most_tokens: int) -> TokenIds:
    """Give the places where batches of rows begin, and the number of rows at the end.

    Args:
        lengths: (N,) events of each row, the longest first.
        most_rows: rows in a batch.
        most_tokens: rows times the longest row of a batch.
    """
    bounds = [0]
    while bounds[-1] < len(lengths):
        fitting = min(most_rows, most_tokens // max(1, int(lengths[bounds[-1]])))
        bounds.append(min(bounds[-1] + fitting, len(lengths)))
    return np.array(bounds, dtype=np.int64)


class TrainLoader(torch.utils.data.DataLoader[Any]):
    """A DataLoader whose batch sampler is told the epoch.

    The Trainer tells the loader only.
    """

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch.

        Args:
            epoch: counted from 0.
        """
        plan = self.batch_sampler
        if isinstance(plan, BatchPlan):
            plan.set_epoch(epoch)
