"""What every split does with a frame: check it, number each user's events, mark the targets."""

import math
from typing import Any

import narwhals as nw
import numpy as np

from recbert.events import IS_TARGET, REQUIRED_COLUMNS, TIMESTAMP, USER_ID
from recbert.events.engine import Frame, collect, materialise, rows, single
from recbert.events.holding import add_places
from recbert.splits.protocol import is_quantile, parse_cut

#: Place of an event in its user's history, counted from 1, and how many events come after it.
PLACE, AFTER = "__recbert_place", "__recbert_after"
_LAST = "__recbert_last"
_BIN, _BINS, _FEW = "__recbert_bin", 4096, 1 << 16


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


def time_of_cut(frame: Frame, cut: float | str, events: int) -> float:
    """Epoch seconds of a cut that may be a quantile of the times of a frame with so many events."""
    if not is_quantile(cut):
        return parse_cut(cut)
    # The q-quantile is the time of the event that has floor(q * events) events before it. Interpolated
    # quantiles differ between engines in the last bit, which could move an event across the cut.
    return nth_smallest(frame, TIMESTAMP, math.floor(float(cut) * events + 1e-9))


def nth_smallest(frame: Frame, column: str, place: int) -> float:
    """The number that comes at a place, from 0, when those of a column are put in ascending order.

    Counted in ever finer bins instead of sorted: no engine has to put all rows into one order.
    """
    values = frame.select(column)
    while True:
        found = single(
            values.select(
                nw.len().alias("n"), nw.col(column).min().alias("low"), nw.col(column).max().alias("high")
            )
        )
        low, high = float(found["low"]), float(found["high"])
        if low == high:
            return low
        if found["n"] <= _FEW:
            few = np.asarray(collect(values).to_arrow().column(column).to_numpy())
            return float(np.partition(few, place)[place])
        # Never falling in the value, so that what is in a lower bin is smaller.
        binned = values.with_columns(((nw.col(column) - low) * (_BINS / (high - low))).floor().alias(_BIN))
        for count in rows(binned.group_by(_BIN).agg(nw.len().alias("n")).sort(_BIN)):
            if place < count["n"]:
                values = binned.filter(nw.col(_BIN) == count[_BIN]).select(column)
                break
            place -= count["n"]


def number_events(frame: Frame) -> Frame:
    """The events with `PLACE` and `AFTER` in the order of time, then of the order column (else item id)."""
    return materialise(add_places(frame, PLACE, AFTER))


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
