"""Whole users in or out: cohorts by joining date, and random users that are the same on every engine."""

from typing import Any

import narwhals as nw
import numpy as np

from recbert.events import TIMESTAMP, USER_ID
from recbert.events.engine import Frame, single
from recbert.events.holding import mark_members, open_events
from recbert.splits.parts import check_complete, time_of_cut
from recbert.splits.protocol import UserOrder, check_choice, check_least

RANK = "__recbert_rank"
_KEY, _SQUARE, _FIRST = "__recbert_key", "__recbert_square", "__recbert_first"
_KEPT = "__recbert_kept"
#: Below 2**31, so that products fit 64 bits; 2 modulo 3, so that cubing permutes the numbers below it.
_PRIME = 2147483579
_ROUNDS = 4


def select_users(
    events: Any,
    *,
    by: UserOrder = "joined",
    fraction: float = 0.8,
    keep: str = "first",
    seed: int = 0,
) -> Any:
    """The events of one cohort of users, as the same kind of frame.

    Args:
        events: An event frame of any kind.
        by: Line the users up by when they "joined" (their first event; ties by user id) or at "random".
        fraction: The share of users in the first cohort, between 0 and 1, rounded to whole users.
        keep: The "first" cohort, or the "rest".
        seed: Which random order, at least 0.

    Raises:
        ValueError: An argument is out of its range, events lack an id or a time, or a cohort has no users.
    """
    check_choice("by", by, ("joined", "random"))
    check_choice("keep", keep, ("first", "rest"))
    check_least("seed", seed, 0)
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction!r}; give a number between 0 and 1")
    opened = open_events(events)
    frame = opened.frame
    users = check_complete(frame)["users"]
    first = round(fraction * users)
    if not 0 < first < users:
        raise ValueError(f"fraction is {fraction}: of {users} users that leaves one cohort without any")
    kept = nw.col(RANK) <= first if keep == "first" else nw.col(RANK) > first
    return opened.restore(keep_users(frame, rank_users(frame, by, seed).filter(kept)))


def select_active(train: Any, events: Any, *, since: float | str, replay: float = 0.0, seed: int = 0) -> Any:
    """The events of users who went on after a time, and those of some others, as the same kind of frame.

    What a model that knows the time before is fine-tuned on: histories that hold something new, whole, so
    that the new is seen in its context, and others against forgetting.

    Args:
        train: Events to choose from, such as the training part of a split.
        events: All events, of which `since` may be a quantile.
        since: A user is active with an event of `train` from then on: a share of the events below 1, or a
            time, as for the cuts of `split_events`.
        replay: Share of the other users that stays too, drawn at random; from 0 to 1.
        seed: Of the draw, at least 0.

    Raises:
        ValueError: An argument is out of its range, or nobody is active.
    """
    check_least("seed", seed, 0)
    if not 0 <= replay <= 1:
        raise ValueError(f"replay is {replay!r}; give a share from 0 to 1")
    everything = open_events(events).frame
    start = time_of_cut(everything, since, check_complete(everything)["events"])
    opened = open_events(train)
    frame = opened.frame
    last = frame.group_by(USER_ID).agg(nw.col(TIMESTAMP).max())  # one row a user
    active, others = last.filter(nw.col(TIMESTAMP) >= start), last.filter(nw.col(TIMESTAMP) < start)
    if not single(active.select(nw.len().alias("n")))["n"]:
        raise ValueError(f"since is {since!r}: no training event is as late; choose an earlier time")
    number = round(replay * single(others.select(nw.len().alias("n")))["n"])
    replayed = rank_users(others, "random", seed).filter(nw.col(RANK) <= number)
    return opened.restore(keep_users(frame, nw.concat([active.select(USER_ID), replayed.select(USER_ID)])))


def rank_users(frame: Frame, by: UserOrder, seed: int) -> Frame:
    """One row a user with its place in the line, `RANK`, counted from 1."""
    users = frame.group_by(USER_ID).agg(nw.col(TIMESTAMP).min().alias(_FIRST))
    if by == "joined":
        return users.with_columns(_number(_FIRST, USER_ID).alias(RANK)).select(USER_ID, RANK)
    # No two engines share a random function or a hash. So users are numbered by id and the numbers are
    # permuted by an exact formula: rounds of (x + key)^3 modulo a prime.
    users = users.with_columns(_number(USER_ID).alias(_KEY))
    for key in np.random.default_rng(seed).integers(0, _PRIME, _ROUNDS).tolist():
        users = users.with_columns(((nw.col(_KEY) + key) % _PRIME).alias(_KEY))
        users = users.with_columns((nw.col(_KEY) * nw.col(_KEY) % _PRIME).alias(_SQUARE))
        users = users.with_columns((nw.col(_KEY) * nw.col(_SQUARE) % _PRIME).alias(_KEY))
    return users.with_columns(_number(_KEY).alias(RANK)).select(USER_ID, RANK)


def keep_users(frame: Frame, users: Frame) -> Frame:
    """The events of the given users."""
    return mark_members(frame, USER_ID, users, _KEPT).filter(nw.col(_KEPT)).drop(_KEPT)


def _number(*order_by: str) -> nw.Expr:
    return nw.col(USER_ID).cum_count().over(order_by=list(order_by)).cast(nw.Int64)
