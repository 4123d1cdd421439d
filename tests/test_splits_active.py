"""Histories that go on after a time, to fine-tune a model that knows the time before."""

import duckdb
import polars as pl
import pytest

from recbert.splits import select_active, split_events
from tests.test_splits import make_events, rows_of

CUTS = (0.9, 0.95)


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    """Users who join one after the other and leave again."""
    frame = make_events(60)
    user = pl.col("user_id").str.extract(r"(\d+)").cast(pl.Float64)
    return frame.with_columns(pl.col("timestamp") / 20 + user)


def users_of(frame: object) -> set[str]:
    return {row["user_id"] for row in rows_of(frame)}


@pytest.mark.parametrize("since", [0.8, 45.0])
def test_active_histories_stay_whole(events: pl.DataFrame, since: float) -> None:
    train, _, _ = split_events(events, cuts=CUTS)
    times = sorted(events["timestamp"])
    start = since if since > 1 else times[int(since * len(times) + 1e-9)]
    kept = select_active(train, events, since=since)
    expected = {row["user_id"] for row in rows_of(train) if row["timestamp"] >= start}
    assert 0 < len(expected) < len(users_of(train))
    assert rows_of(kept) == [row for row in rows_of(train) if row["user_id"] in expected]


def test_some_others_are_replayed(events: pl.DataFrame) -> None:
    train, _, _ = split_events(events, cuts=CUTS)
    active, everyone = users_of(select_active(train, events, since=0.8)), users_of(train)
    kept = users_of(select_active(train, events, since=0.8, replay=0.5))
    assert active < kept and len(kept - active) == round(0.5 * len(everyone - active))
    other = users_of(select_active(train, events, since=0.8, replay=0.5, seed=1))
    assert other != kept and len(other) == len(kept)
    assert users_of(select_active(train, events, since=0.8, replay=1.0)) == everyone


def test_engines_choose_alike(events: pl.DataFrame) -> None:
    expected = rows_of(select_active(events, events, since=0.8, replay=0.3))
    assert rows_of(select_active(events.lazy(), events.lazy(), since=0.8, replay=0.3)) == expected
    with duckdb.connect() as connection:
        relation = connection.from_arrow(events.to_arrow())
        assert rows_of(select_active(relation, relation, since=0.8, replay=0.3)) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"since": 0.8, "replay": 1.5}, "share from 0 to 1"),
        ({"since": "2100-01-01"}, "no training event is as late"),
        ({"since": "someday"}, "someday"),
        ({"since": 0.8, "seed": -1}, "at least 0"),
    ],
)
def test_what_is_out_of_range_is_refused(
    events: pl.DataFrame, options: dict[str, object], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        select_active(events, events, **options)
