"""Missing times and values filled from the user's own history, and flagged."""

from __future__ import annotations

import narwhals as nw

from recbert.events.columns import ORDER, TIMESTAMP, USER_ID
from recbert.events.engine import Frame, single, tie_breaker

METHODS = ("median", "neighbours")


def impute(frame: Frame, column: str, method: str, argument: str) -> Frame:
    """The frame with missing numbers of a column filled, and a boolean column `<column>_imputed`.

    Args:
        frame: canonical events.
        column: `timestamp` or `value`.
        method: "median": the median of the user's known numbers, or of all known ones for a user without any;
            "neighbours": the middle between the nearest known ones before and after in the history,
            or the only one there is. Users without a known number stay missing under "neighbours".
        argument: name of the argument, for messages.

    Raises:
        ValueError: if the method is unknown, nothing is known at all, or neighbours of times are asked for
            where no column says which events are neighbours.
    """
    if method not in METHODS:
        raise ValueError(f"{argument}={method!r} must be one of {', '.join(METHODS)}, or None")
    names = frame.collect_schema().names()
    if column not in names:
        raise ValueError(f"{argument}={method!r} needs the column '{column}': name it in read_events")
    if method == "neighbours" and column == TIMESTAMP and ORDER not in names:
        raise ValueError(
            f"{argument}='neighbours' needs the column '{ORDER}', which says where in its history an event "
            "without a time stands: name one in read_events(order=...), or use 'median'"
        )
    known = nw.col(column)
    if method == "median":
        overall = single(frame.select(known.median().alias("median")))["median"]
        if overall is None:
            raise ValueError(
                f"{argument}='median': no event has a {column}, so there is nothing to impute from"
            )
        filled = nw.coalesce(known, known.median().over(USER_ID), nw.lit(float(overall)))
    else:
        keys = [ORDER] if column == TIMESTAMP else [TIMESTAMP, tie_breaker(frame)]
        before = known.fill_null(strategy="forward").over(USER_ID, order_by=keys)
        after = known.fill_null(strategy="backward").over(USER_ID, order_by=keys)
        filled = nw.coalesce(known, (before + after) / 2, before, after)
    filled_name = f"{column}_filled"
    frame = frame.with_columns(filled.alias(filled_name))
    flag = known.is_null() & ~nw.col(filled_name).is_null()
    return (
        frame.with_columns(flag.alias(f"{column}_imputed"))
        .with_columns(nw.col(filled_name).alias(column))
        .drop(filled_name)
    )
