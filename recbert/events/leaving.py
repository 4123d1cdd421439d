"""The one exit from the engine: a stream of Arrow tables sorted by user, each of whole users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import narwhals as nw
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from recbert.events.columns import (
    EVENT_TYPE,
    IS_TARGET,
    ITEM_ID,
    ORDER,
    REQUIRED_COLUMNS,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from recbert.events.duckdb_tables import stream_relation
from recbert.events.engine import Frame, collect
from recbert.events.holding import is_held, open_events
from recbert.events.spark_tables import stream_spark

#: Rows that an engine hands over at once.
BATCH_ROWS = 1 << 20
_TYPES = {TIMESTAMP: pa.float64(), EVENT_TYPE: pa.large_string(), VALUE: pa.float64(), IS_TARGET: pa.bool_()}


def stream_sorted(events: Any) -> Iterator[pa.Table]:
    """The events as Arrow tables, sorted by user, time and order (item id where there is no order).

    Everything before runs where the frame lives, everything after works on Arrow columns. A user's events are
    all in one table. Ids are dictionaries, `event_type` is `large_string`, `timestamp` and `value` are
    float64, `is_target` bool; one chunk each, nothing missing among user, item and time. Tables hold about a
    million rows where the engine can hand them over bit by bit.

    Raises:
        ValueError: if the table is not canonical or still holds events without user, item or time.
    """
    opened = open_events(events)
    present = opened.frame.collect_schema().names()
    names = [name for name in (USER_ID, ITEM_ID, *_TYPES) if name in present]
    if is_held(opened.frame):
        tables = iter([_collect_held(opened.frame.select(*names), opened.ids)])
    else:
        tables = _cut_between_users(_stream_engine(opened.frame, names))
    yield from tables


def _collect_held(frame: Frame, ids: Mapping[str, pl.Series]) -> pa.Table:
    table = collect(frame).to_polars().rechunk().to_arrow()
    _check_complete(table)
    for name, texts in ids.items():
        numbers = table.column(name).combine_chunks()
        column = pa.DictionaryArray.from_arrays(numbers, texts.cast(pl.String).to_arrow())
        table = table.set_column(table.column_names.index(name), name, column)
    return _cast(table)


def _stream_engine(frame: Frame, names: list[str]) -> Iterator[pa.Table]:
    keys = [USER_ID, TIMESTAMP, *([ORDER] if ORDER in frame.collect_schema().names() else []), ITEM_ID]
    if frame.implementation.is_duckdb():
        yield from stream_relation(nw.to_native(frame.sort(*keys).select(*names)), BATCH_ROWS)
    else:
        yield from stream_spark(nw.to_native(frame), USER_ID, keys, names)


def _cut_between_users(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Tables sorted by user as tables of about `BATCH_ROWS` rows or more that end where a user ends."""
    waiting: list[pa.Table] = []
    for table in tables:
        _check_complete(table)
        waiting.append(table)
        if sum(map(len, waiting)) < BATCH_ROWS:
            continue
        table = pa.concat_tables(waiting)
        users = table.column(USER_ID)
        begin = pc.index(users, users[-1]).as_py()
        if begin:
            yield _encode_ids(table.slice(0, begin))
        waiting = [table.slice(begin)]
    yield _encode_ids(pa.concat_tables(waiting))


def _encode_ids(table: pa.Table) -> pa.Table:
    table = table.combine_chunks()
    for name in (USER_ID, ITEM_ID):
        texts = table.column(name).cast(pa.large_string()).combine_chunks()
        table = table.set_column(table.column_names.index(name), name, texts.dictionary_encode())
    return _cast(table)


def _cast(table: pa.Table) -> pa.Table:
    """The columns in their types, one chunk each."""
    fields = [(name, _TYPES.get(name, table.schema.field(name).type)) for name in table.column_names]
    return table.cast(pa.schema(fields)).combine_chunks()


def _check_complete(table: pa.Table) -> None:
    for name in REQUIRED_COLUMNS:
        missing = table.column(name).null_count
        if missing:
            raise ValueError(
                f"{missing} events have no {name}: drop them with clean_events(events, "
                "drop_invalid=True), or impute missing times with impute_time"
            )
