"""What the single cleaning steps keep, as expressions and joins that every engine runs."""

from __future__ import annotations

from collections.abc import Sequence

import narwhals as nw

from recbert.events.columns import (
    EVENT_TYPE,
    ITEM_ID,
    ORDER,
    REQUIRED_COLUMNS,
    SESSION_ID,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from recbert.events.engine import Frame, collect, place_beside, single, tie_breaker


def need(names: Sequence[str], column: str, argument: str) -> None:
    """Check that a step has the column it works on.

    Raises:
        ValueError: if it has not.
    """
    if column not in names:
        raise ValueError(f"{argument} needs the column '{column}': name it in read_events({column}=...)")


def is_valid() -> nw.Expr:
    """Whether an event has user, item and time."""
    valid = ~nw.col(REQUIRED_COLUMNS[0]).is_null()
    for name in REQUIRED_COLUMNS[1:]:
        valid = valid & ~nw.col(name).is_null()
    return valid


def is_first_copy(frame: Frame) -> nw.Expr:
    """Whether no earlier row is equal in user, item, time, event type and value."""
    names = frame.collect_schema().names()
    same = [name for name in (USER_ID, ITEM_ID, TIMESTAMP, EVENT_TYPE, VALUE) if name in names]
    by = [ORDER] if ORDER in names else [ITEM_ID]
    # Counting a constant would not be a window function; the user id is there in every valid row.
    return nw.col(USER_ID).cum_count().over(*same, order_by=by) <= 1


def is_change_of_item(frame: Frame) -> nw.Expr:
    """Whether the user's event before this one (by time, then order) is of another item, or there is none."""
    previous = nw.col(ITEM_ID).shift(1).over(USER_ID, order_by=[TIMESTAMP, tie_breaker(frame)])
    return (nw.col(ITEM_ID) != previous).fill_null(True)


def is_of_modest_user(most: int) -> nw.Expr:
    """Whether the user has at most this many events."""
    return nw.len().over(USER_ID) <= most


def mark_core(frame: Frame, min_user_count: int, min_item_count: int, mark: str) -> Frame:
    """The frame with a boolean column that says whether a row is in the core.

    The core is the largest set of events in which every user has `min_user_count` events and every item
    `min_item_count`. Users and items are counted in turn among what is left, by semi-joins on the engine,
    until nothing changes; only the ids that stay leave it.
    """
    users = _frequent(frame, USER_ID, min_user_count)
    items = _frequent(frame.join(users, on=USER_ID, how="semi"), ITEM_ID, min_item_count)
    size = -1
    while True:
        left = frame.join(users, on=USER_ID, how="semi").join(items, on=ITEM_ID, how="semi")
        count = int(single(left.select(nw.len().alias("n")))["n"])
        if count == size:
            break
        size = count
        users = _frequent(left, USER_ID, min_user_count)
        left = frame.join(users, on=USER_ID, how="semi").join(items, on=ITEM_ID, how="semi")
        items = _frequent(left, ITEM_ID, min_item_count)
    marked = frame.join(users.with_columns(nw.lit(True).alias("_user_stays")), on=USER_ID, how="left")
    marked = marked.join(items.with_columns(nw.lit(True).alias("_item_stays")), on=ITEM_ID, how="left")
    stays = ~nw.col("_user_stays").is_null() & ~nw.col("_item_stays").is_null()
    return marked.with_columns(stays.alias(mark)).drop("_user_stays", "_item_stays")


def _frequent(frame: Frame, column: str, least: int) -> Frame:
    counted = frame.filter(~nw.col(column).is_null()).group_by(column).agg(nw.len().alias("n"))
    kept = counted.filter(nw.col("n") >= least).select(column)
    return place_beside(frame, collect(kept).to_arrow())


def number_sessions(frame: Frame, gap_minutes: float) -> Frame:
    """The frame with `session_id`: 0 for a user's first session, one more after every pause above the gap."""
    by = [TIMESTAMP, tie_breaker(frame)]
    pause = nw.col(TIMESTAMP) - nw.col(TIMESTAMP).shift(1).over(USER_ID, order_by=by)
    frame = frame.with_columns((pause > gap_minutes * 60).fill_null(False).cast(nw.Int64).alias(SESSION_ID))
    return frame.with_columns(nw.col(SESSION_ID).cum_sum().over(USER_ID, order_by=by).cast(nw.Int64))
