"""`build_sequences`: split events into rows of token ids with times, types and values beside them."""

import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recbert.events import EVENT_TYPE, IS_TARGET, ITEM_ID, TIMESTAMP, USER_ID, VALUE, stream_sorted
from recbert.sequences.windows import Places, WindowKind, Windows, cut_windows, gather_blocks, keep_whole
from recbert.tokenizer import UNK_ID, ItemTokenizer

logger = logging.getLogger(__name__)


def build_sequences(
    train: Any,
    valid: Any = None,
    test: Any = None,
    *,
    tokenizer: ItemTokenizer,
    max_length: int = 200,
    windows: WindowKind = "last",
    stride: int | None = None,
) -> datasets.DatasetDict:
    """Histories as a `DatasetDict` with parts "train", "valid" and "test"; parts given as None are absent.

    A row has, the earliest event first, the columns ``input_ids`` (int32), ``timestamps`` (float64, epoch
    seconds), ``is_target`` (bool), and ``event_type`` (string) and ``value`` (float32, NaN where missing)
    if the events have them; and its ``user_id``. Items that the tokenizer does not know are ``[UNK]``.

    Rows of valid and test are whole users, uncut: the history of a target is everything before it, and the
    seen-item filter needs all of it. Rows of train are windows of at most ``max_length + 1`` events, so that
    a next-item objective has ``max_length`` inputs with a label each. The first event of a row is a target
    only where a history begins with it:

    - "last": the last window of each user; earlier events are left out.
    - "sliding": windows at every ``stride`` events up to the user's last; each event is a target in one
      window, and what overlaps the window before is context.
    - "prefix": one row for each event, which is its only target. The number of elements grows with the square
      of the history's length (up to ``max_length`` times the events).

    Args:
        train: Events to learn from, a frame of any kind; all are targets unless `is_target` says otherwise.
        valid: Events with `is_target` as `split_events` gives them.
        test: The same for the test.
        tokenizer: The vocabulary, built from the training part.
        max_length: The most events that the model will see, at least 1; one less than its positions where a
            start token takes one.
        windows: How training rows are cut.
        stride: For "sliding", 1 to max_length; None is max_length, which overlaps windows by one event.

    Raises:
        ValueError: An argument is out of its range, the tokenizer has a single item, train has no events, or
            a part lacks a column.
    """
    streams = stream_sequences(
        train,
        valid,
        test,
        tokenizer=tokenizer,
        max_length=max_length,
        windows=windows,
        stride=stride,
    )
    # Without a name of its own, `datasets` would hash every row of a part to make one.
    return datasets.DatasetDict(
        {
            name: datasets.Dataset(pa.concat_tables(blocks), fingerprint=uuid.uuid4().hex[:16])
            for name, blocks in streams.items()
        }
    )


def stream_sequences(
    train: Any,
    valid: Any = None,
    test: Any = None,
    *,
    tokenizer: ItemTokenizer,
    max_length: int = 200,
    windows: WindowKind = "last",
    stride: int | None = None,
) -> dict[str, Iterator[pa.Table]]:
    """The parts of `build_sequences` as streams of blocks of rows, of which one at a time is in memory.

    Each stream has at least one block, which may be empty, and is to be read to its end before the next one:
    DuckDB answers one question at a time. The arguments are those of `build_sequences`; what is wrong with
    the events is raised while a stream is read.

    Raises:
        ValueError: As `build_sequences` does.
    """
    stride = _check_options(tokenizer, max_length, windows, stride)

    def cut(bounds: Places) -> Windows:
        return cut_windows(bounds, windows, max_length + 1, stride)

    streams = {"train": _stream_part(train, "train", tokenizer, cut)}
    for name, events in (("valid", valid), ("test", test)):
        if events is not None:
            streams[name] = _stream_part(events, name, tokenizer, keep_whole)
    return streams


def _check_options(tokenizer: ItemTokenizer, max_length: int, windows: WindowKind, stride: int | None) -> int:
    if tokenizer.num_items < 2:
        raise ValueError(
            "tokenizer has a single item: there is nothing to choose from; give events of more items"
        )
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}; give at least 1")
    if windows not in get_args(WindowKind):
        raise ValueError(f"windows is {windows!r}; allowed are {', '.join(map(repr, get_args(WindowKind)))}")
    if stride is None:
        return max_length
    if windows != "sliding":
        raise ValueError(f"stride is {stride}, but windows='{windows}' has none; use windows='sliding'")
    if not 1 <= stride <= max_length:
        raise ValueError(f"stride is {stride}; give 1 to max_length ({max_length})")
    return stride


class _Block(NamedTuple):
    """Events of whole users, sorted by user and time, as columns.

    Attributes:
        users: (U,) user ids.
        bounds: (U + 1,) the events at which users begin, and their number.
        tokens: (E,) int32 token ids.
        is_target: (E,) bool.
        beside: (E,) columns that travel along: times, event types, values.
    """

    users: pa.Array
    bounds: Places
    tokens: NDArray[np.int32]
    is_target: NDArray[np.bool_]
    beside: dict[str, pa.Array]


def _stream_part(
    events: Any, name: str, tokenizer: ItemTokenizer, cut: Callable[[Places], Windows]
) -> Iterator[pa.Table]:
    """The rows of one part, block by block; what it holds is told at the end."""
    counts = dict.fromkeys(("users", "events", "kept", "targets", "cold"), 0)
    for table in stream_sorted(events):
        if IS_TARGET not in table.column_names:
            if name != "train":
                raise ValueError(
                    f"{name} has no column '{IS_TARGET}': give the parts that split_events returns"
                )
            table = table.append_column(IS_TARGET, pa.array(np.ones(len(table), dtype=np.bool_)))
        block = _read_block(table, tokenizer)
        windows = cut(block.bounds)
        counts["users"] += len(block.users)
        counts["events"] += len(block.tokens)
        counts["kept"] += int((windows.stop - windows.start).sum())
        counts["targets"] += int(block.is_target.sum())
        counts["cold"] += int((block.is_target & (block.tokens == UNK_ID)).sum())
        yield from _fill_rows(block, windows)
    if name == "train" and not counts["events"]:
        raise ValueError("train has no events: loosen the cleaning or the split, or give more events")
    logger.info(
        "%s: %s users, %s events, %s targets, of which %s of items outside the vocabulary",
        name,
        counts["users"],
        counts["events"],
        counts["targets"],
        counts["cold"],
    )
    # Only the last window leaves events out; the others overlap.
    if counts["kept"] < counts["events"]:
        logger.warning(
            "%s of %s training events lie before their user's last window and are left out of train, its "
            "counts and the baselines: windows='sliding' keeps them",
            f"{counts['events'] - counts['kept']:,}",
            f"{counts['events']:,}",
        )


def _read_block(table: pa.Table, tokenizer: ItemTokenizer) -> _Block:
    users, items = table.column(USER_ID).chunk(0), table.column(ITEM_ID).chunk(0)
    numbers = users.indices.to_numpy()
    bounds = (
        np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1], [True]]))
        if len(numbers)
        else np.zeros(1, dtype=np.int64)
    )
    token_ids = np.array(tokenizer.encode(items.dictionary.to_pylist()), dtype=np.int32)
    beside = {"timestamps": table.column(TIMESTAMP).chunk(0)}
    if EVENT_TYPE in table.column_names:
        beside[EVENT_TYPE] = table.column(EVENT_TYPE).chunk(0)
    if VALUE in table.column_names:
        values = table.column(VALUE).chunk(0).to_numpy(zero_copy_only=False)
        beside[VALUE] = pa.array(values.astype(np.float32))
    return _Block(
        users=users.dictionary.take(users.indices.take(pa.array(bounds[:-1]))),
        bounds=bounds,
        tokens=token_ids[items.indices.to_numpy()],
        is_target=table.column(IS_TARGET).chunk(0).to_numpy(zero_copy_only=False).astype(np.bool_),
        beside=beside,
    )


def _fill_rows(block: _Block, windows: Windows) -> Iterator[pa.Table]:
    """The windows' events gathered into rows; at least one table, which may be empty."""
    kinds = {"timestamps": pa.float64(), EVENT_TYPE: pa.string(), VALUE: pa.float32()}
    schema = pa.schema(
        {
            USER_ID: pa.string(),
            "input_ids": pa.list_(pa.int32()),
            **{name: pa.list_(kinds[name]) for name in block.beside},
            IS_TARGET: pa.list_(pa.bool_()),
        }
    )
    owners = np.searchsorted(block.bounds, windows.start, side="right") - 1
    if not len(owners):
        yield schema.empty_table()
    for rows, offsets, events in gather_blocks(windows):
        starts = pa.array(offsets.astype(np.int32))
        asked = events >= np.repeat(windows.target[rows], np.diff(offsets))
        columns = {
            USER_ID: block.users.take(pa.array(owners[rows])).cast(pa.string()),
            "input_ids": pa.ListArray.from_arrays(starts, pa.array(block.tokens[events])),
            IS_TARGET: pa.ListArray.from_arrays(starts, pa.array(block.is_target[events] & asked)),
        }
        places = pa.array(events)
        for name, values in block.beside.items():
            columns[name] = pa.ListArray.from_arrays(starts, values.take(places).cast(kinds[name]))
        yield pa.table([columns[name] for name in schema.names], schema=schema)
