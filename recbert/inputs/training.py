"""Training rows: read from a prepared part, drawn in batches."""

from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from recbert.inputs.blocks import Block, merge_blocks, read_blocks
from recbert.inputs.moments import check_times
from recbert.inputs.padding import TokenIds, ranges
from recbert.tokenizer import FIRST_ITEM_ID

_TOKENS_IN_MEMORY = 1 << 28
"""Parts up to this size, about a gigabyte, are copied into memory; larger ones stay memory-mapped."""


class Draw(NamedTuple):
    """The rows of one batch, as a sampler asks for them.

    The epoch travels with the row numbers, so that it reaches every process and every loader worker.

    Attributes:
        rows: (B,) row numbers; none asks for a row without a label, which only keeps pace with the other
            processes.
        epoch: counted from 0.
    """

    rows: TokenIds
    epoch: int


class TrainBatch(NamedTuple):
    """Training sequences, one after another.

    Attributes:
        tokens: (T,) token ids, the earliest event of each sequence first.
        is_target: (T,) bool, the events that may be predicted.
        lengths: (B,) events of each sequence.
        rows: (B,) row numbers.
        seed: with the epoch and a row's number it decides what is drawn for that row: not the batch, and not
            the number of processes.
        epoch: counted from 0.
        times: (T,) epoch seconds, NaN where unknown; None where they are not needed.
    """

    tokens: TokenIds
    is_target: NDArray[np.bool_]
    lengths: TokenIds
    rows: TokenIds
    seed: int
    epoch: int
    times: NDArray[np.float64] | None = None

    def last(self, most: int) -> Self:
        """Cut each sequence to its latest events.

        Args:
            most: events that stay at most.
        """
        if self.lengths.max(initial=0) <= most:
            return self
        kept = np.minimum(self.lengths, most)
        return self.take(ranges(np.cumsum(self.lengths) - kept, kept), kept)

    def take(self, places: TokenIds, lengths: TokenIds) -> Self:
        """Make sequences of other events of the same rows; whatever belongs to an event goes with it.

        Args:
            places: (T',) which event of the batch stands at each place; it may come more than once.
            lengths: (B,) events of each new sequence.
        """
        return self._replace(
            tokens=self.tokens[places],
            is_target=self.is_target[places],
            lengths=lengths,
            times=None if self.times is None else self.times[places],
        )

    def prepend(self, token_id: int) -> Self:
        """Put a token in front of each sequence; it is no target and has no time.

        Args:
            token_id: the token.
        """
        starts = np.cumsum(self.lengths) - self.lengths
        places = np.insert(np.arange(len(self.tokens)), starts, starts)
        batch = self.take(places, self.lengths + 1)
        fronts = starts + np.arange(len(starts))
        batch.tokens[fronts], batch.is_target[fronts] = token_id, False
        if batch.times is not None:
            batch.times[fronts] = np.nan
        return batch


class TrainRows(torch.utils.data.Dataset[TrainBatch]):
    """The training part, read in batches.

    Large parts stay on disk (memory-mapped Arrow); what is held for each row are four numbers. Events whose
    item the vocabulary does not have are left out, as they are in a query, and counted in `unknown`. Rows of
    fewer than `least` known events have nothing to learn from and are counted in `dropped`; their events
    still count as popularity.

    Args:
        part: rows with `input_ids`, `is_target` and, for windows that overlap, `user_id`: a
            `datasets.Dataset`, a pyarrow Table or a list of dictionaries.
        least: known events that a row needs.
        seed: decides, with epoch and row number, what is drawn for a row.
        with_times: read `timestamps` too.

    Raises:
        ValueError: a column is absent or has missing values.
    """

    def __init__(self, part: Any, *, least: int, seed: int, with_times: bool = False) -> None:
        self._least, self._seed, self._with_times = least, seed, with_times
        self.unknown = 0
        self.dropped = 0
        self._counts = np.zeros(0, dtype=np.int64)
        blocks = list(read_blocks(part, with_times=with_times))
        if len(blocks) > 1 and sum(len(block.tokens) for block in blocks) <= _TOKENS_IN_MEMORY:
            blocks = [merge_blocks(blocks)]
        self._blocks = blocks
        found = [self._scan(number, block) for number, block in enumerate(blocks)]
        none = np.zeros((4, 0), dtype=np.int64)
        places = np.concatenate([none, *found], axis=1)
        self._block, self._start = places[0].astype(np.int32), places[1]
        self._length, self._known = places[2].astype(np.int32), places[3].astype(np.int32)

    def _scan(self, number: int, block: Block) -> NDArray[np.int64]:
        """Count a block's events; list block, start, length and known events of usable rows, (4, n)."""
        starts, lengths = block.bounds[:-1], np.diff(block.bounds)
        is_known = block.tokens >= FIRST_ITEM_ID
        is_target = block.all_targets()
        before = np.concatenate([[0], np.cumsum(is_known)])
        known = before[block.bounds[1:]] - before[starts]
        self.unknown += int((~is_known).sum())
        # The place of each event among the known ones of its row, from 1.
        place = before[1:] - np.repeat(before[starts], lengths)
        labels = np.concatenate([[0], np.cumsum(is_known & is_target & (place >= self._least))])
        usable = (known >= self._least) & (labels[block.bounds[1:]] > labels[starts])
        self.dropped += int((~usable).sum())
        # A later window of a user repeats events as context; the first one has nothing to repeat.
        counted = is_known & (is_target | np.repeat(block.is_first, lengths))
        events = np.bincount(block.tokens[counted].astype(np.int64) - FIRST_ITEM_ID)
        self._counts = add_counts(self._counts, events)
        rows = np.flatnonzero(usable)
        return np.stack([np.full(len(rows), number), starts[rows], lengths[rows], known[rows]])

    def __len__(self) -> int:
        """Give the number of rows."""
        return len(self._start)

    def __getitems__(self, draw: Draw) -> TrainBatch:
        """Give the rows of one batch as they are used in one epoch.

        A DataLoader whose batch sampler yields a `Draw` asks for a whole batch at once.
        """
        if len(draw.rows) == 0:
            # A real item, since attention over padding alone is undefined.
            tokens = np.full(self._least, FIRST_ITEM_ID)
            one = np.array([self._least])
            times = np.full(self._least, np.nan) if self._with_times else None
            return TrainBatch(tokens, tokens < 0, one, np.zeros(1, np.int64), self._seed, draw.epoch, times)
        batch = self._gather(draw)
        known = batch.tokens >= FIRST_ITEM_ID
        if known.all():
            return batch
        return batch.take(np.flatnonzero(known), self._known[draw.rows].astype(np.int64))

    def _gather(self, draw: Draw) -> TrainBatch:
        """Give rows as they are stored."""
        rows = draw.rows
        lengths, starts, owners = self._length[rows], self._start[rows], self._block[rows]
        ends = np.cumsum(lengths)
        tokens = np.empty(ends[-1], dtype=np.int64)
        is_target = np.empty(ends[-1], dtype=np.bool_)
        times = np.empty(ends[-1]) if self._with_times else None
        for number in np.unique(owners):
            own = np.flatnonzero(owners == number)
            block = self._blocks[number]
            source = ranges(starts[own], lengths[own])
            goal = ranges(ends[own] - lengths[own], lengths[own])
            tokens[goal] = block.tokens[source]
            is_target[goal] = block.targets(source)
            if times is not None and block.times is not None:
                times[goal] = block.times[source]
        return TrainBatch(tokens, is_target, lengths.astype(np.int64), rows, self._seed, draw.epoch, times)

    def check_times(self) -> None:
        """Refuse times that tell nothing.

        Raises:
            ValueError: all times are the same or missing.
        """
        check_times([block.times for block in self._blocks if block.times is not None])

    def count_items(self, num_items: int) -> TokenIds:
        """Count the events of each item; an event that several windows share counts once.

        Args:
            num_items: items in the vocabulary.

        Returns:
            (V_items,) counts in the order of the item tokens.
        """
        return add_counts(self._counts, np.zeros(num_items, dtype=np.int64))

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Give the known events of each row, (N,)."""
        lengths: NDArray[np.int32] = self._known
        return lengths


def add_counts(first: TokenIds, second: TokenIds) -> TokenIds:
    """Add the counts of two vocabularies, one the beginning of the other.

    Args:
        first: (V1,) counts.
        second: (V2,) counts.

    Returns:
        (max(V1, V2),) counts, a new array.
    """
    total = np.zeros(max(len(first), len(second)), dtype=np.int64)
    total[: len(first)] += first
    total[: len(second)] += second
    return total
