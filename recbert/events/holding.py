"""Polars events held sorted by user and time with numbers for ids: hashed and sorted once for all steps.

Text costs most of the time and memory of preparing events. So polars events are collected once, their ids
numbered in the order of the text, and the rows sorted by user, time and order. On a held frame the event
before is the row before, and filters keep that true. The lazy frame that goes back to the caller spells the
ids out again when it is collected, and remembers the held one: a lazy frame never changes, so the next room
may start from there. DuckDB relations and Spark frames are never held; there the same steps are windows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import polars as pl

from recbert.events.columns import ITEM_ID, ORDER, TIMESTAMP, USER_ID
from recbert.events.engine import Frame, as_frame, collect, open_frame, require_events, single, tie_breaker

_MEMORY = "_recbert_held"
_ROW = "_recbert_row"
_COUNT = "_recbert_count"


@dataclasses.dataclass(frozen=True)
class Opened:
    """Events opened for several steps.

    Attributes:
        frame: polars events held (ids are numbers, rows sorted); on other engines the events as they are.
        ids: the texts that the numbers of a column stand for, in ascending order; empty where none is held.
        restore: gives a result the kind that came in, ids as text, polars' rows by the order column.
    """

    frame: Frame
    ids: Mapping[str, pl.Series]
    restore: Callable[[Frame], Any]

    def spell(self, frame: Frame) -> Frame:
        """A frame with its ids as text."""
        names = frame.collect_schema().names()
        texts = {name: texts for name, texts in self.ids.items() if name in names}
        if not texts:
            return frame
        native = nw.to_native(frame)
        return as_frame(
            native.with_columns(pl.lit(ids).gather(pl.col(name)).alias(name) for name, ids in texts.items())
        )


def open_events(events: Any) -> Opened:
    """Canonical events of any kind; polars, pandas and Arrow tables and `datasets` are held.

    Raises:
        ValueError: if the table is not canonical.
    """
    if (kept := getattr(events, _MEMORY, None)) is not None:
        native, ids = kept
        return _open_held(native, ids, nw.to_native, remember=True)
    frame, restore = open_frame(events)
    require_events(frame)
    if not isinstance(nw.to_native(frame), pl.LazyFrame):
        return Opened(frame, {}, restore)
    table, ids = _sort_by_user(collect(frame).to_polars())
    return _open_held(table.lazy(), ids, restore, remember=isinstance(events, pl.LazyFrame))


def _open_held(
    native: pl.LazyFrame, ids: Mapping[str, pl.Series], restore: Callable[[Frame], Any], remember: bool
) -> Opened:
    def release(result: Frame) -> Any:
        answer = restore(_by_order(opened.spell(result)))
        if remember:
            setattr(answer, _MEMORY, (nw.to_native(result), ids))
        return answer

    opened = Opened(as_frame(native), ids, release)
    return opened


def distinct_items(events: Any) -> list[str]:
    """The distinct item ids of a table of any kind that has a column `item_id`, in no particular order.

    Raises:
        ValueError: if the column is absent or the kind unknown.
    """
    if (kept := getattr(events, _MEMORY, None)) is None:
        frame, _ = open_frame(events, argument="items", columns=[ITEM_ID])
        return list(collect(frame.unique()).to_arrow().column(ITEM_ID).to_pylist())
    native, ids = kept
    numbers = collect(as_frame(native.select(pl.col(ITEM_ID).unique()))).to_polars()[ITEM_ID]
    return list(ids[ITEM_ID].gather(numbers))


class ItemEvents(NamedTuple):
    """What happened to an item: the number of its events, and the time of the last one in epoch seconds."""

    number: int
    last: float


def item_events(events: Any) -> dict[str, ItemEvents]:
    """The number and the last time of the events of each item, in a table of any kind.

    Args:
        events: with the columns `item_id` and `timestamp`.

    Raises:
        ValueError: if a column is absent or the kind unknown.
    """
    kept = getattr(events, _MEMORY, None)
    frame = as_frame(kept[0]) if kept else open_frame(events, columns=[ITEM_ID, TIMESTAMP])[0]
    summary = frame.group_by(ITEM_ID).agg(nw.len().alias(_COUNT), nw.col(TIMESTAMP).max())
    table = collect(summary).to_arrow().select([ITEM_ID, _COUNT, TIMESTAMP])
    names, counts, times = (column.to_pylist() for column in table.columns)
    if kept:
        names = list(kept[1][ITEM_ID].gather(names))
    return {name: ItemEvents(*values) for name, *values in zip(names, counts, times, strict=True)}


def is_held(frame: Frame) -> bool:
    """Whether a frame of events is sorted, with numbers for ids."""
    return frame.collect_schema()[USER_ID] == nw.UInt32


def sort_held(frame: Frame) -> Frame:
    """A held frame sorted again, after its times have changed; other frames as they are."""
    return frame.sort(USER_ID, TIMESTAMP, tie_breaker(frame)) if is_held(frame) else frame


def add_previous(frame: Frame, column: str, name: str) -> Frame:
    """The frame with a column of the user's event before each (by time, then order); null at the first."""
    if not is_held(frame):
        by = [TIMESTAMP, tie_breaker(frame)]
        return frame.with_columns(nw.col(column).shift(1).over(USER_ID, order_by=by).alias(name))
    return as_frame(
        nw.to_native(frame).with_columns(pl.when(~_starts_user()).then(pl.col(column).shift()).alias(name))
    )


def add_places(frame: Frame, place: str, after: str) -> Frame:
    """The frame with each event's place in its user's history, from 1, and the number of events after it."""
    if not is_held(frame):
        number = nw.col(USER_ID).cum_count().over(USER_ID, order_by=[TIMESTAMP, tie_breaker(frame)])
        size = nw.col(USER_ID).count().over(USER_ID)
        frame = frame.with_columns(number.cast(nw.Int64).alias(place), size.cast(nw.Int64).alias(after))
        return frame.with_columns((nw.col(after) - nw.col(place)).alias(after))
    row = pl.int_range(pl.len(), dtype=pl.Int32)
    start = pl.when(_starts_user()).then(row).forward_fill()
    native = nw.to_native(frame).with_columns((row - start + 1).alias(place))
    total = pl.len().over(USER_ID).cast(pl.Int32)
    return as_frame(native.with_columns((total - pl.col(place)).alias(after)))


def count_tied(frame: Frame) -> int:
    """The number of events of a held frame that share user and time with another."""
    return int(collect(as_frame(nw.to_native(frame).select(_is_tied().sum().alias("n")))).to_polars()["n"][0])


def mark_first_held(frame: Frame, same: list[str], mark: str) -> Frame:
    """A held frame with a boolean column: whether no earlier row is equal in the named columns.

    They include user and time, so that equal rows stand at one time of one user. Few rows share both with
    another, and only those are compared.
    """
    native = nw.to_native(frame)
    compared = _is_tied() & pl.col(USER_ID).is_not_null()
    total = single(frame.select(nw.len().alias("n")))["n"]
    few = collect(as_frame(native.with_row_index(_ROW).filter(compared).select(_ROW, *same))).to_polars()
    is_first = np.ones(total, dtype=np.bool_)
    is_first[few[_ROW].to_numpy()] = False
    is_first[few.unique(same, keep="first", maintain_order=True)[_ROW].to_numpy()] = True
    return as_frame(native.with_columns(pl.lit(pl.Series(is_first)).alias(mark)))


def mark_members(frame: Frame, column: str, kept: Frame, name: str) -> Frame:
    """The frame with a boolean column: whether an id is in a small frame of distinct ids."""
    if not is_held(frame):
        marked = frame.join(kept.select(column).with_columns(nw.lit(True).alias(name)), on=column, how="left")
        return marked.with_columns((~nw.col(name).is_null()).alias(name))
    # A join would not promise to keep the rows sorted.
    numbers = collect(kept.select(column).filter(~nw.col(column).is_null())).to_polars()[column].to_numpy()
    is_member = np.zeros(int(numbers.max(initial=0)) + 1, dtype=np.bool_)
    is_member[numbers] = True
    found = pl.lit(pl.Series(is_member)).gather(pl.col(column), null_on_oob=True)
    return as_frame(nw.to_native(frame).with_columns(found.fill_null(False).alias(name)))


def _starts_user() -> pl.Expr:
    """Whether a row of a held frame is the first of its user; events without a user count as one user's."""
    user = pl.col(USER_ID)
    return user.ne_missing(user.shift()) | (pl.int_range(pl.len()) == 0)


def _is_tied() -> pl.Expr:
    """Whether a row of a held frame shares user and time with the one before or after it."""
    same = ~_starts_user() & pl.col(TIMESTAMP).eq_missing(pl.col(TIMESTAMP).shift())
    return same | same.shift(-1, fill_value=False)


def _by_order(frame: Frame) -> Frame:
    return frame.sort(ORDER) if ORDER in frame.collect_schema().names() else frame


def _sort_by_user(table: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, pl.Series]]:
    """The table held, and its texts.

    Users are grouped by hash, and only the distinct ones sorted; inside a group, the rows by time.
    """
    items, numbers = _number_ids(table, ITEM_ID)
    names = table.columns
    table = table.with_columns(numbers)
    keys, ordered = [TIMESTAMP, ITEM_ID], False
    if ORDER in names:
        keys, ordered = [TIMESTAMP, ORDER, ITEM_ID], bool((table[ORDER].diff() > 0).all())
    by = keys[:1] if ordered else keys
    groups = (
        table.lazy()
        .select(USER_ID, *by)
        .with_row_index(_ROW)
        .group_by(USER_ID)
        .agg(pl.col(_ROW).sort_by(by, maintain_order=True))
        .sort(USER_ID)
        .collect()
    )
    users = groups[USER_ID].drop_nulls()
    number = pl.int_range(pl.len(), dtype=pl.Int64) - (len(groups) - len(users))
    groups = groups.select(pl.when(number >= 0).then(number).cast(pl.UInt32).alias(USER_ID), _ROW)
    places = groups.explode(_ROW)
    rest = table.lazy().select(pl.exclude(USER_ID).gather(places[_ROW])).collect()
    held = rest.with_columns(places[USER_ID].set_sorted()).select(names)
    return held, {USER_ID: users, ITEM_ID: items}


def _number_ids(table: pl.DataFrame, name: str) -> tuple[pl.Series, pl.Series]:
    """The distinct texts of a column in ascending order, and the column as numbers of them."""
    texts = table.lazy().select(name).unique().sort(name).collect()[name].drop_nulls()
    numbers = table.lazy().select(pl.col(name).cast(pl.Enum(texts)).to_physical().cast(pl.UInt32))
    # The streaming engine is the one that casts on all cores.
    return texts, numbers.collect(engine="streaming")[name]
