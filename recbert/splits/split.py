"""`split_events`: one event table into train, validation and test, lazily and on the engine of the table."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import narwhals as nw

from recbert.events import TIMESTAMP, USER_ID
from recbert.events.engine import Frame, single
from recbert.events.holding import open_events
from recbert.splits.parts import (
    AFTER,
    PLACE,
    check_complete,
    drop_flags,
    mark_all,
    mark_targets,
    number_events,
    time_of_cut,
)
from recbert.splits.protocol import Method, SplitProtocol, Target, UserOrder
from recbert.splits.users import RANK, keep_users, rank_users

logger = logging.getLogger(__name__)
Parts = tuple[Frame, Frame, Frame]


def split_events(
    events: Any,
    method: Method | SplitProtocol = "temporal",
    *,
    cuts: tuple[float | str, float | str] | None = None,
    target: Target | None = None,
    n_test: int | None = None,
    n_valid: int | None = None,
    fractions: tuple[float, float, float] | None = None,
    by: UserOrder | None = None,
    seed: int | None = None,
) -> tuple[Any, Any, Any]:
    """Train, validation and test: three frames of the kind that came in, with a boolean `is_target`.

    Every event of train is a target. Validation and test hold, of each user, the targets and all earlier
    events as their context (`is_target` False), so that no part needs another to build a history.

    Args:
        events: An event frame of any kind: polars, pandas, Arrow, `datasets`, DuckDB or Spark.
        method: The way to split, or a whole `SplitProtocol`, which explains every option below.
        cuts: Where validation and test begin, for "temporal".
        target: Which event of a user's window is asked for, for "temporal".
        n_test: How many last events of a user are test targets, for "leave-n-out" and "users".
        n_valid: How many events before those are validation targets, for "leave-n-out".
        fractions: Shares of users in train, validation and test, for "users".
        by: "random" users or by when they "joined", for "users".
        seed: Which random users, for "users".

    Raises:
        ValueError: An option is out of its range, events lack an id or a time or are all of one user, or a
            part would be empty: all times equal under "temporal", no user with enough events, fewer users
            than parts.
    """
    protocol = method if isinstance(method, SplitProtocol) else SplitProtocol(method)
    given: dict[str, Any] = {
        "cuts": cuts,
        "target": target,
        "n_test": n_test,
        "n_valid": n_valid,
        "fractions": fractions,
        "by": by,
        "seed": seed,
    }
    protocol = replace(protocol, **{name: value for name, value in given.items() if value is not None})
    opened = open_events(events)
    frame = drop_flags(opened.frame)
    summary = check_complete(frame)
    if summary["users"] < 2:
        raise ValueError(
            "events are all of one user: there is nobody to learn from for anybody; give more users"
        )
    if protocol.method == "temporal":
        parts = _split_at_times(frame, protocol, summary)
    elif protocol.method == "users":
        parts = _split_users(frame, protocol, summary["users"])
    else:
        parts = _split_last(frame, protocol)
    train, valid, test = (opened.restore(part) for part in parts)
    return train, valid, test


def _split_at_times(frame: Frame, protocol: SplitProtocol, summary: dict[str, Any]) -> Parts:
    if summary["start"] == summary["end"]:
        raise ValueError(
            f"all {summary['events']} events have the timestamp {summary['start']:g}: a temporal split has "
            "nothing to cut; use method='leave-n-out' or method='users'"
        )
    first, second = _resolve_cuts(frame, protocol, summary)
    time = nw.col(TIMESTAMP)
    numbered = number_events(frame)
    answerable = nw.col(PLACE) > protocol.min_history
    # The valid part never sees an event at or after the second cut, the train part none after the first.
    valid = mark_targets(numbered.filter(time < second), (time >= first) & answerable, which=protocol.target)
    test = mark_targets(numbered, (time >= second) & answerable, which=protocol.target)
    return mark_all(frame.filter(time < first)), valid, test


def _resolve_cuts(frame: Frame, protocol: SplitProtocol, summary: dict[str, Any]) -> tuple[float, float]:
    """Both cuts in epoch seconds, with events in every part."""
    time = nw.col(TIMESTAMP)
    first, second = (time_of_cut(frame, cut, summary["events"]) for cut in protocol.cuts)
    sizes = single(
        frame.select(
            (time < first).cast(nw.Int64).sum().alias("train"),
            ((time >= first) & (time < second)).cast(nw.Int64).sum().alias("validation"),
            (time >= second).cast(nw.Int64).sum().alias("test"),
        )
    )
    empty = [name for name, size in sizes.items() if not size]
    if empty:
        raise ValueError(
            f"cuts is {protocol.cuts}, that is {_clock(first)} and {_clock(second)}, and leaves no events in "
            f"{' and '.join(empty)}: the {summary['events']} events lie between {_clock(summary['start'])} "
            f"and {_clock(summary['end'])}; choose ascending cuts in between"
        )
    logger.info("temporal cuts %s and %s; events %s", _clock(first), _clock(second), sizes)
    return first, second


def _split_last(frame: Frame, protocol: SplitProtocol) -> Parts:
    held_out = protocol.n_test + protocol.n_valid
    users = frame.group_by(USER_ID).agg(nw.len().alias("events"))
    short = (nw.col("events") <= held_out).cast(nw.Int64).sum().alias("short")
    found = single(users.select(short, nw.len().alias("users"), nw.col("events").max().alias("longest")))
    if found["short"] == found["users"]:
        raise ValueError(
            f"n_test={protocol.n_test} and n_valid={protocol.n_valid} need users with {held_out + 1} or more "
            f"events, but the longest of {found['users']} histories has {found['longest']}; hold out fewer"
        )
    if found["short"]:
        logger.info(
            "%s of %s users have fewer than %s events and stay wholly in train",
            int(found["short"]),
            found["users"],
            held_out + 1,
        )
    numbered = number_events(frame)
    after = nw.col(AFTER)
    is_long = nw.col(PLACE) + after > held_out
    train = mark_all(numbered.filter((after >= held_out) | ~is_long))
    valid = mark_targets(numbered.filter(after >= protocol.n_test), is_long & (after < held_out))
    return train, valid, mark_targets(numbered, is_long & (after < protocol.n_test))


def _split_users(frame: Frame, protocol: SplitProtocol, users: int) -> Parts:
    shares = protocol.fractions
    first, second = round(shares[0] * users), round((shares[0] + shares[1]) * users)
    sizes = (first, second - first, users - second)
    if any(share > 0 and size == 0 for share, size in zip(shares, sizes, strict=True)):
        raise ValueError(
            f"fractions is {shares}: of {users} users that puts {sizes} into train, validation and test; "
            "give more users or other fractions, or use method='leave-n-out'"
        )
    logger.info("users in train, validation and test: %s", sizes)
    ranked, rank = rank_users(frame, protocol.by, protocol.seed), nw.col(RANK)
    numbered = number_events(frame)
    is_target = (nw.col(AFTER) < protocol.n_test) & (nw.col(PLACE) > protocol.min_history)
    train = mark_all(keep_users(frame, ranked.filter(rank <= first)))
    valid = keep_users(numbered, ranked.filter((rank > first) & (rank <= second)))
    test = keep_users(numbered, ranked.filter(rank > second))
    return train, mark_targets(valid, is_target), mark_targets(test, is_target)


def _clock(seconds: float) -> str:
    """A time as people write it; the plain number where the calendar ends."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g}"
