"""`build_sequences`: split events into rows of token ids with times, types and values beside them."""

import logging
from typing import Any, NamedTuple, get_args

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recbert.events import EVENT_TYPE, IS_TARGET, ITEM_ID, TIMESTAMP, USER_ID, VALUE
from recbert.events.engine import collect_sorted
from recbert.sequences.windows import Places, WindowKind, Windows, cut_windows, gather_blocks
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
    a next-item objective has ``max_length`` inputs with a label each:

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
        max_length: The most positions that the model will see, at least 1.
        windows: How training rows are cut.
        stride: For "sliding", 1 to max_length; None is max_length, which overlaps windows by one event.

    Raises:
        ValueError: An argument is out of its range, the tokenizer has a single item, train has no events, or
            a part lacks a column.
    """
    stride = _check_options(tokenizer, max_length, windows, stride)
    table = _sort_part(train, "train", tokenizer)
    if len(table.tokens) == 0:
        raise ValueError("train has no events: loosen the cleaning or the split, or give more events")
    cut = cut_windows(table.bounds, windows, max_length + 1, stride)
    if windows == "last" and (lost := len(table.tokens) - int((cut.stop - cut.start).sum())):
        logger.warning(
            "%s of %s training events lie before their user's last %s and are left out of train, its counts "
            "and the baselines: windows='sliding' keeps them",
            f"{lost:,}",
            f"{len(table.tokens):,}",
            max_length + 1,
        )
    parts = {"train": _build_part(table, cut)}
    for name, events in (("valid", valid), ("test", test)):
        if events is not None:
            table = _sort_part(events, name, tokenizer)
            low, high = table.bounds[:-1], table.bounds[1:]
            parts[name] = _build_part(table, Windows(low, high, low))
    return datasets.DatasetDict(parts)


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


class _SortedPart(NamedTuple):
    """One part's events sorted by user and time, as columns.

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


def _sort_part(events: Any, name: str, tokenizer: ItemTokenizer) -> _SortedPart:
    table = collect_sorted(events)
    if IS_TARGET not in table.column_names:
        if name != "train":
            raise ValueError(f"{name} has no column '{IS_TARGET}': give the parts that split_events returns")
        table = table.append_column(IS_TARGET, pa.array(np.ones(len(table), dtype=np.bool_)))
    users = _one_chunk(table.column(USER_ID)).dictionary_encode()
    codes = users.indices.to_numpy()
    bounds = np.concatenate([np.flatnonzero(np.diff(codes, prepend=-1)), [len(codes)]]).astype(np.int64)
    items = _one_chunk(table.column(ITEM_ID)).dictionary_encode()
    ids_of_items = np.array(tokenizer.encode(items.dictionary.to_pylist()), dtype=np.int32)
    tokens = ids_of_items[items.indices.to_numpy()]
    is_target = _one_chunk(table.column(IS_TARGET)).to_numpy(zero_copy_only=False).astype(np.bool_)
    beside = {"timestamps": _one_chunk(table.column(TIMESTAMP))}
    if EVENT_TYPE in table.column_names:
        beside[EVENT_TYPE] = _one_chunk(table.column(EVENT_TYPE)).cast(pa.large_string())
    if VALUE in table.column_names:
        values = _one_chunk(table.column(VALUE)).to_numpy(zero_copy_only=False)
        beside[VALUE] = pa.array(values.astype(np.float32))
    logger.info(
        "%s: %s users, %s events, %s targets, of which %s of items outside the vocabulary",
        name,
        len(bounds) - 1,
        len(tokens),
        int(is_target.sum()),
        int((is_target & (tokens == UNK_ID)).sum()),
    )
    return _SortedPart(users.dictionary, bounds, tokens, is_target, beside)


def _build_part(table: _SortedPart, windows: Windows) -> datasets.Dataset:
    """One part as a dataset: the windows' events gathered block by block."""
    kinds = {"timestamps": pa.float64(), EVENT_TYPE: pa.string(), VALUE: pa.float32()}
    schema = pa.schema(
        {
            USER_ID: pa.string(),
            "input_ids": pa.list_(pa.int32()),
            **{name: pa.list_(kinds[name]) for name in table.beside},
            IS_TARGET: pa.list_(pa.bool_()),
        }
    )
    owners = np.searchsorted(table.bounds, windows.start, side="right") - 1
    blocks = []
    for rows, offsets, events in gather_blocks(windows):
        starts = pa.array(offsets.astype(np.int32))
        asked = events >= np.repeat(windows.target[rows], np.diff(offsets))
        columns = {
            USER_ID: table.users.take(pa.array(owners[rows])).cast(pa.string()),
            "input_ids": pa.ListArray.from_arrays(starts, pa.array(table.tokens[events])),
            IS_TARGET: pa.ListArray.from_arrays(starts, pa.array(table.is_target[events] & asked)),
        }
        places = pa.array(events)
        for name, values in table.beside.items():
            columns[name] = pa.ListArray.from_arrays(starts, values.take(places).cast(kinds[name]))
        blocks.append(pa.table([columns[name] for name in schema.names], schema=schema))
    return datasets.Dataset(pa.concat_tables(blocks) if blocks else schema.empty_table())


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
