"""What every split does with a frame: check it, number each user's events, mark the targets."""

from typing import Any

import narwhals as nw

from recbert.events import IS_TARGET, REQUIRED_COLUMNS, TIMESTAMP, USER_ID
from recbert.events.engine import Frame, single, tie_breaker

#: Place of an event in its user's history, counted from 1, and how many events come after it.
PLACE, AFTER = "__recbert_place", "__recbert_after"
_LAST = "__recbert_last"


def check_complete(frame: Frame) -> dict[str, Any]:
    """The numbers of events and users, and the first and the last time.

    Raises:
        ValueError: There are no events, or some lack user, item or time.
    """
    found = single(
        frame.select(
            nw.len().alias("events"),
            nw.col(USER_ID).n_unique().alias("users"),
            nw.col(TIMESTAMP).min().alias("start"),
            nw.col(TIMESTAMP).max().alias("end"),
            *(nw.col(name).null_count().alias(f"no {name}") for name in REQUIRED_COLUMNS),
        )
    )
    if found["events"] == 0:
        raise ValueError("events is empty: there is nothing to split")
    lacking = [f"{int(found[f'no {name}'])} no {name}" for name in REQUIRED_COLUMNS if found[f"no {name}"]]
    if lacking:
        raise ValueError(
            f"of {found['events']} events {', '.join(lacking)}: drop them with "
            "clean_events(events, drop_invalid=True), or impute missing times"
        )
    return found


def number_events(frame: Frame) -> Frame:
    """The events with `PLACE` and `AFTER` in the order of time, then of the order column (else item id)."""
    place = nw.col(USER_ID).cum_count().over(USER_ID, order_by=[TIMESTAMP, tie_breaker(frame)])
    total = nw.col(USER_ID).count().over(USER_ID)
    frame = frame.with_columns(place.cast(nw.Int64).alias(PLACE), total.cast(nw.Int64).alias(AFTER))
    return frame.with_columns((nw.col(AFTER) - nw.col(PLACE)).alias(AFTER))


def mark_targets(numbered: Frame, is_target: nw.Expr, *, which: str = "all") -> Frame:
    """Targets with their context: of every user the events up to the last target, and nothing after it.

    Args:
        numbered: What `number_events` made.
        is_target: The events that may be targets, one run of consecutive events a user.
        which: "all" of the run, its "first" or its "last".
    """
    places = nw.when(nw.col(IS_TARGET)).then(nw.col(PLACE))
    frame = numbered.with_columns(is_target.alias(IS_TARGET)).with_columns(places.alias(_LAST))
    last = nw.col(_LAST).min() if which == "first" else nw.col(_LAST).max()
    frame = frame.with_columns(last.over(USER_ID)).filter(nw.col(PLACE) <= nw.col(_LAST))
    if which != "all":
        frame = frame.with_columns((nw.col(PLACE) == nw.col(_LAST)).alias(IS_TARGET))
    return frame.drop(PLACE, AFTER, _LAST)


def mark_all(frame: Frame) -> Frame:
    """The training part: every event is something to learn to predict."""
    own = [name for name in (PLACE, AFTER) if name in frame.collect_schema().names()]
    return frame.drop(*own).with_columns(nw.lit(True).alias(IS_TARGET))


def drop_flags(frame: Frame) -> Frame:
    """The events without the `is_target` of an earlier split."""
    return frame.drop(IS_TARGET) if IS_TARGET in frame.collect_schema().names() else frame
