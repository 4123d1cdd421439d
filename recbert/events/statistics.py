"""What an event table looks like in numbers, counted on its engine."""

from __future__ import annotations

import datetime
import math
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from recbert.events.columns import EVENT_TYPE, ITEM_ID, TIMESTAMP, USER_ID
from recbert.events.engine import Frame, collect, rows, single
from recbert.events.holding import add_previous, count_tied, is_held

TIME_BINS = 60
POPULARITY_POINTS = 200
GAP_BINS_PER_DECADE = 4

Counts = NDArray[np.int64]

_BEFORE = "_recbert_before"


def count_ties(frame: Frame) -> int:
    """Number of events that share user and time with another event, so that only the tie rule orders them."""
    if is_held(frame):
        return count_tied(frame)
    groups = frame.group_by(USER_ID, TIMESTAMP).agg(nw.len().alias("n")).filter(nw.col("n") > 1)
    return int(single(groups.select(nw.col("n").sum()))["n"] or 0)


def describe_events(frame: Frame) -> tuple[dict[str, Any], dict[str, list[list[float]]]]:
    """What the table holds in numbers, and as distributions, in one go because they share their counts.

    Returns:
        statistics: events, users, items, first and last time (ISO 8601), density, history lengths, and events
            by type where there are types.
        distributions: the four of the report's page, each a list of [x, count] pairs. `history_lengths`:
            [length, users]. `events_over_time`: [start of the bin in epoch seconds, events]. `popularity`:
            [rank, events], at most 200 ranks spread evenly over the logarithm. `gaps`: [start of the bin in
            seconds, pairs of consecutive events of one user], in quarters of a decade; ties count at 0.
    """
    lengths, popularity = _counts(frame, USER_ID), np.sort(_counts(frame, ITEM_ID))[::-1]
    span = single(frame.select(nw.col(TIMESTAMP).min().alias("first"), nw.col(TIMESTAMP).max().alias("last")))
    statistics = _describe(lengths, popularity, span)
    if EVENT_TYPE in frame.collect_schema().names():
        kinds = rows(frame.group_by(EVENT_TYPE).agg(nw.len().alias("n")).sort(EVENT_TYPE))
        statistics["event_types"] = {str(row[EVENT_TYPE]): int(row["n"]) for row in kinds}
    ranks = np.unique(np.geomspace(1, len(popularity), POPULARITY_POINTS).round().astype(np.int64))
    distributions = {
        "history_lengths": _pairs(*np.unique(lengths, return_counts=True)),
        "events_over_time": _over_time(frame, span),
        "popularity": _pairs(ranks, popularity[ranks - 1]),
        "gaps": _gaps(frame),
    }
    return statistics, distributions


def _describe(lengths: Counts, popularity: Counts, span: dict[str, Any]) -> dict[str, Any]:
    events, users, items = int(lengths.sum()), len(lengths), len(popularity)
    return {
        "events": events,
        "users": users,
        "items": items,
        "density": events / (users * items),
        "first_event": _iso(span["first"]),
        "last_event": _iso(span["last"]),
        "history_length": {
            "minimum": int(lengths.min()),
            "median": float(np.median(lengths)),
            "mean": float(lengths.mean()),
            "maximum": int(lengths.max()),
        },
    }


def _counts(frame: Frame, column: str) -> Counts:
    counted = frame.group_by(column).agg(nw.len().alias("n")).select("n")
    return np.asarray(collect(counted).to_arrow().column("n").to_numpy(), dtype=np.int64)


def _over_time(frame: Frame, span: dict[str, Any]) -> list[list[float]]:
    frame = frame.filter(~nw.col(TIMESTAMP).is_null())
    if span["first"] is None:
        return []
    first = float(span["first"])
    # Whole seconds: engines round fractions differently at the edge of a bin.
    width = max(1, math.ceil((float(span["last"]) - first + 1) / TIME_BINS))
    place = (nw.col(TIMESTAMP) - first).floor().cast(nw.Int64) // width
    counted = rows(frame.select(place.alias("bin")).group_by("bin").agg(nw.len().alias("n")))
    found = {int(row["bin"]): int(row["n"]) for row in counted}
    return [[first + place * width, found.get(place, 0)] for place in range(max(found) + 1)]


def _gaps(frame: Frame) -> list[list[float]]:
    gap = nw.col(TIMESTAMP) - nw.col(_BEFORE)
    frame = add_previous(frame, TIMESTAMP, _BEFORE).select(gap.alias("gap")).filter(~nw.col("gap").is_null())
    ties = int(single(frame.select((nw.col("gap") <= 0).cast(nw.Int64).sum().alias("n")))["n"] or 0)
    # The 1e-9 puts powers of ten into the bin they begin, however an engine rounds their logarithm.
    binned = frame.filter(nw.col("gap") > 0).select(
        (nw.col("gap").log(10) * GAP_BINS_PER_DECADE + 1e-9).floor().alias("bin")
    )
    counted = rows(binned.group_by("bin").agg(nw.len().alias("n")).sort("bin"))
    pairs: list[list[float]] = [[10 ** (row["bin"] / GAP_BINS_PER_DECADE), int(row["n"])] for row in counted]
    return ([[0.0, ties]] if ties else []) + pairs


def _pairs(x: Any, y: Any) -> list[list[float]]:
    return [[int(a), int(b)] for a, b in zip(x, y, strict=True)]


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC).isoformat()
