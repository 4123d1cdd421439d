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
from recbert.events.holding import add_previous, is_held, mark_first_held, mark_members

_BEFORE, _USER_STAYS, _ITEM_STAYS = "_recbert_before", "_recbert_user_stays", "_recbert_item_stays"


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


def mark_first_copies(frame: Frame, mark: str) -> Frame:
    """The frame with a boolean column: whether no row before is equal in user, item, time, type and value."""
    names = frame.collect_schema().names()
    same = [name for name in (USER_ID, ITEM_ID, TIMESTAMP, EVENT_TYPE, VALUE) if name in names]
    if is_held(frame):
        return mark_first_held(frame, same, mark)
    by = [ORDER] if ORDER in names else [ITEM_ID]
    # Counting a constant would not be a window function; the user id is there in every valid row.
    return frame.with_columns((nw.col(USER_ID).cum_count().over(*same, order_by=by) <= 1).alias(mark))


def mark_changes_of_item(frame: Frame, mark: str) -> Frame:
    """The frame with a boolean column: whether the user's event before is of another item, or missing."""
    frame = add_previous(frame, ITEM_ID, _BEFORE)
    changes = (nw.col(ITEM_ID) != nw.col(_BEFORE)).fill_null(True)
    return frame.with_columns(changes.alias(mark)).drop(_BEFORE)


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
    items = _frequent(mark_members(frame, USER_ID, users, mark).filter(nw.col(mark)), ITEM_ID, min_item_count)
    size = -1
    while True:
        left = _of_both(frame, users, items)
        count = int(single(left.select(nw.len().alias("n")))["n"])
        if count == size:
            break
        size = count
        users = _frequent(left, USER_ID, min_user_count)
        items = _frequent(_of_both(frame, users, items), ITEM_ID, min_item_count)
    both = mark_members(mark_members(frame, USER_ID, users, _USER_STAYS), ITEM_ID, items, mark)
    return both.with_columns((nw.col(mark) & nw.col(_USER_STAYS)).alias(mark)).drop(_USER_STAYS)


def _of_both(frame: Frame, users: Frame, items: Frame) -> Frame:
    """The events of these users with these items."""
    of_users = mark_members(frame, USER_ID, users, _USER_STAYS).filter(nw.col(_USER_STAYS)).drop(_USER_STAYS)
    return mark_members(of_users, ITEM_ID, items, _ITEM_STAYS).filter(nw.col(_ITEM_STAYS)).drop(_ITEM_STAYS)


def _frequent(frame: Frame, column: str, least: int) -> Frame:
    counted = frame.filter(~nw.col(column).is_null()).group_by(column).agg(nw.len().alias("n"))
    kept = counted.filter(nw.col("n") >= least).select(column)
    return place_beside(frame, collect(kept).to_arrow())


def number_sessions(frame: Frame, gap_minutes: float) -> Frame:
    """The frame with `session_id`: 0 for a user's first session, one more after every pause above the gap."""
    frame = add_previous(frame, TIMESTAMP, _BEFORE)
    pause = nw.col(TIMESTAMP) - nw.col(_BEFORE)
    frame = frame.with_columns((pause > gap_minutes * 60).fill_null(False).cast(nw.Int64).alias(SESSION_ID))
    by = [TIMESTAMP, tie_breaker(frame)]
    number = nw.col(SESSION_ID).cum_sum().over(USER_ID, order_by=by).cast(nw.Int64)
    return frame.with_columns(number.alias(SESSION_ID)).drop(_BEFORE)
