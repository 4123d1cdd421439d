"""Training rows from a stream that is read from one end to the other and never held whole."""

import itertools
import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from recbert.inputs import TokenIds, TrainBatch, TrainRows, add_counts
from recbert.training.batches import BatchPlan, BatchShape, Order


class TrainStream(torch.utils.data.IterableDataset[TrainBatch]):
    """The training part as an endless stream of batches.

    Rows are read ahead in a thread, fifty optimiser steps at a time; these are shuffled and grouped by length
    among themselves, and the stream starts anew when it ends. Shuffle the source (`IterableDataset.shuffle`)
    to mix rows further than that. Every process reads the whole stream and takes its share of the batches, so
    that several processes see what one sees.

    Args:
        source: a `datasets.IterableDataset` with the columns of a prepared training part.
        shape: what goes into a batch.
        least: known events that a row needs.
        seed: decides the order and what is drawn for each row.
        order: `group_by_length`, `random` or `sequential`, within what is read ahead.
        process: the process, from 0, whose share is given.
        with_times: read `timestamps` too.
        patience_s: seconds without a row after which the stream counts as stalled.
    """

    def __init__(
        self,
        source: Any,
        shape: BatchShape,
        *,
        least: int,
        seed: int,
        order: Order = "group_by_length",
        process: int = 0,
        with_times: bool = False,
        patience_s: float = 300.0,
    ) -> None:
        self._source, self._shape, self._least, self._seed = source, shape, least, seed
        self._with_times = with_times
        self._order, self._process, self._patience_s = order, process, patience_s
        self._counts = np.zeros(0, dtype=np.int64)

    def count_items(self, num_items: int) -> TokenIds:
        """Count the events of each item in what was read so far, at most once through the stream.

        Args:
            num_items: items in the vocabulary.

        Returns:
            (V_items,) counts in the order of the item tokens.
        """
        return add_counts(self._counts, np.zeros(num_items, dtype=np.int64))

    def __iter__(self) -> Iterator[TrainBatch]:
        """Give this process's batches, without an end.

        Raises:
            RuntimeError: the stream broke, stalled, or ended earlier than the first time.
            ValueError: it has no row to learn from.
        """
        first_time = 0
        for epoch in itertools.count():
            self._source.set_epoch(epoch)
            seen = usable = 0
            for table in _read_ahead(self._source, self._shape.rows_of_group, self._patience_s):
                rows = TrainRows(table, least=self._least, seed=self._seed, with_times=self._with_times)
                if self._with_times and epoch == seen == 0:
                    rows.check_times()
                if epoch == 0:
                    self._counts = add_counts(self._counts, rows.count_items(0))
                yield from self._batches(rows, epoch, seen)
                seen += len(table)
                usable += len(rows)
            if not usable:
                raise ValueError(
                    f"the stream gave {seen} rows and none has {self._least} or more known events: check "
                    "what it reads, and that its vocabulary is this one"
                )
            if seen < first_time:
                raise RuntimeError(
                    f"the stream ended after {seen} rows and had {first_time} the first time: check the "
                    "source, then resume from the last checkpoint"
                )
            first_time = seen

    def _batches(self, rows: TrainRows, epoch: int, before: int) -> Iterator[TrainBatch]:
        """Give the batches of one pool of rows."""
        plan = BatchPlan(
            rows.lengths,
            self._shape,
            self._seed + before,
            order=self._order,
            process=self._process,
        )
        plan.set_epoch(epoch)
        for draw in plan:
            batch = rows.__getitems__(draw)
            yield batch._replace(rows=batch.rows + before)


def _read_ahead(source: Any, size: int, patience_s: float) -> Iterator[Any]:
    """Give Arrow tables of so many rows, the next one read by a thread meanwhile."""
    tables: queue.Queue[Any] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                tables.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def read() -> None:
        try:
            for table in source.with_format("arrow").iter(batch_size=size):
                put(table)
                if stop.is_set():
                    return
            put(None)
        except Exception as error:  # whatever a file system or the network raises belongs to the reader
            put(error)

    threading.Thread(target=read, daemon=True, name="recbert-stream").start()
    rows = 0
    try:
        while True:
            try:
                item = tables.get(timeout=patience_s)
            except queue.Empty:
                raise RuntimeError(
                    f"the stream stalled: no row for {patience_s:g} s after {rows} rows; check the source "
                    "and the network, then resume from the last checkpoint"
                ) from None
            if item is None:
                return
            if isinstance(item, Exception):
                raise RuntimeError(
                    f"the stream broke after {rows} rows ({item}): check the source and the network, then "
                    "resume from the last checkpoint"
                ) from item
            rows += len(item)
            yield item
    finally:
        stop.set()
