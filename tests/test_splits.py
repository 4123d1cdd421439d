"""No future event reaches training; every event is asked for once; every engine splits alike."""

import math
import random
from collections import Counter
from typing import Any

import duckdb
import polars as pl
import pytest

from recbert.splits import SplitProtocol, select_users, split_events

Row = dict[str, Any]
METHODS = [
    {"method": "temporal"},
    {"method": "temporal", "target": "first"},
    {"method": "temporal", "target": "all", "cuts": (0.5, 0.75)},
    {"method": "temporal", "target": "all", "cuts": (30.0, 60.0)},
    {"method": "leave-one-out"},
    {"method": "leave-n-out", "n_test": 2, "n_valid": 3},
    {"method": "leave-n-out", "n_test": 3, "n_valid": 0},
    {"method": "users", "n_test": 2},
    {"method": "users", "by": "joined", "fractions": (0.5, 0.2, 0.3)},
    {"method": "users", "fractions": (0.7, 0.0, 0.3), "seed": 3},
]


def make_events(users: int = 40, seed: int = 0) -> pl.DataFrame:
    """Events with many ties in time, in no order."""
    draw = random.Random(seed)
    rows = [
        (f"user {user} é", f"item {draw.randint(0, 30)}", float(draw.randint(user // 2, 100)), draw.random())
        for user in range(users)
        for _ in range(draw.choice([1, 2, 3, 5, 9, 20]))
    ]
    draw.shuffle(rows)
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "value"], orient="row")
    return frame.with_columns(pl.int_range(pl.len()).alias("order"))


def rows_of(frame: Any) -> list[Row]:
    """All rows of any kind of frame, in the order of user, time and order column."""
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    elif isinstance(frame, duckdb.DuckDBPyRelation):
        frame = frame.pl()
    elif not isinstance(frame, pl.DataFrame):
        frame = pl.DataFrame(frame)
    return frame.sort("user_id", "timestamp", "order").to_dicts()


def targets_of(rows: list[Row]) -> list[int]:
    return [row["order"] for row in rows if row["is_target"]]


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return make_events()


@pytest.mark.parametrize("options", METHODS, ids=str)
def test_engines_agree_and_kinds_stay(events: pl.DataFrame, options: dict[str, Any]) -> None:
    parts = split_events(events, **options)
    assert all(isinstance(part, pl.DataFrame) for part in parts)
    wanted = [rows_of(part) for part in parts]
    connection = duckdb.connect()
    for given in (
        events.lazy(),
        connection.from_arrow(events.to_arrow()),
        events.to_pandas(),
        events.to_arrow(),
    ):
        others = split_events(given, **options)
        assert all(type(other) is type(given) for other in others)
        for rows, other in zip(wanted, others, strict=True):
            assert rows_of(other) == rows


@pytest.mark.parametrize("options", METHODS, ids=str)
def test_parts_hold_whole_contexts(events: pl.DataFrame, options: dict[str, Any]) -> None:
    history: dict[str, list[int]] = {}
    for row in rows_of(events):
        history.setdefault(row["user_id"], []).append(row["order"])
    train, valid, test = (rows_of(part) for part in split_events(events, **options))
    assert train and all(row["is_target"] for row in train)
    for part in (valid, test):
        found: dict[str, list[Row]] = {}
        for row in part:
            found.setdefault(row["user_id"], []).append(row)
        for user, rows in found.items():
            assert [row["order"] for row in rows] == history[user][: len(rows)]
            assert rows[-1]["is_target"] and not rows[0]["is_target"]
    known = {row["order"]: {k: row[k] for k in events.columns} for row in rows_of(events)}
    for row in train + valid + test:
        assert {k: row[k] for k in events.columns} == known[row["order"]]
    asked = Counter(targets_of(train) + targets_of(valid) + targets_of(test))
    assert max(asked.values()) == 1


@pytest.mark.parametrize("target", ["last", "first", "all"])
@pytest.mark.parametrize(
    "cuts", [(0.8, 0.9), (0.3, 0.4), (50, 70.5), ("1970-01-01T00:00:50", "1970-01-01T00:01:10Z")]
)
def test_temporal_keeps_the_future_out(events: pl.DataFrame, cuts: Any, target: Any) -> None:
    times = sorted(events["timestamp"])
    first, second = (
        times[math.floor(cut * len(times))]
        if isinstance(cut, float) and cut < 1
        else {50: 50, 70.5: 70.5}.get(cut)
        for cut in cuts
    )
    if isinstance(cuts[0], str):
        first, second = 50, 70
    train, valid, test = (rows_of(part) for part in split_events(events, cuts=cuts, target=target))
    assert sorted(row["order"] for row in train) == sorted(
        events.filter(pl.col("timestamp") < first)["order"].to_list()
    )
    assert max(row["timestamp"] for row in train) < first
    assert max(row["timestamp"] for row in valid) < second
    assert all(first <= row["timestamp"] < second for row in valid if row["is_target"])
    assert all(row["timestamp"] >= second for row in test if row["is_target"])
    # By hand: of each user's events, those in the window that have an earlier event are asked for.
    for part, low, high in ((valid, first, second), (test, second, math.inf)):
        wanted = []
        for _, rows in events.sort("timestamp", "order").group_by("user_id", maintain_order=True):
            window = [row["order"] for row in rows.to_dicts()[1:] if low <= row["timestamp"] < high]
            wanted += {"last": window[-1:], "first": window[:1], "all": window}[target]
        assert sorted(targets_of(part)) == sorted(wanted) and wanted


def test_temporal_asks_every_event_once() -> None:
    events = make_events(seed=2)
    protocol = SplitProtocol(target="all", min_history=0)
    parts = [rows_of(part) for part in split_events(events, protocol)]
    assert sorted(order for part in parts for order in targets_of(part)) == list(range(len(events)))


@pytest.mark.parametrize(("n_test", "n_valid"), [(1, 1), (2, 1), (1, 0), (4, 4)])
def test_leave_n_out_asks_every_event_once(events: pl.DataFrame, n_test: int, n_valid: int) -> None:
    parts = [rows_of(p) for p in split_events(events, "leave-n-out", n_test=n_test, n_valid=n_valid)]
    train, valid, test = (targets_of(part) for part in parts)
    assert sorted(train + valid + test) == list(range(len(events)))
    wanted: tuple[list[int], list[int], list[int]] = ([], [], [])
    for _, rows in events.sort("timestamp", "order").group_by("user_id", maintain_order=True):
        own = rows["order"].to_list()
        ends = (
            (len(own) - n_test - n_valid, len(own) - n_test)
            if len(own) > n_test + n_valid
            else (len(own),) * 2
        )
        for place, order in enumerate(own):
            wanted[(place >= ends[0]) + (place >= ends[1])].append(order)
    assert [sorted(train), sorted(valid), sorted(test)] == [sorted(part) for part in wanted]


def test_leave_one_out_is_leave_n_out_with_one(events: pl.DataFrame) -> None:
    one = split_events(events, "leave-one-out")
    for part, other in zip(one, split_events(events, "leave-n-out", n_test=1, n_valid=1), strict=True):
        assert rows_of(part) == rows_of(other)


def test_ties_without_an_order_column_break_by_item() -> None:
    events = pl.DataFrame(
        {"user_id": [*"uuuuv"], "item_id": ["d", "b", "c", "a", "z"], "timestamp": [1.0] * 5}
    )
    _, valid, test = split_events(events, "leave-one-out")
    assert valid.filter("is_target")["item_id"].to_list() == ["c"]
    assert test.filter("is_target")["item_id"].to_list() == ["d"]
    _, _, ordered = split_events(events.with_columns(order=pl.int_range(5)), "leave-one-out")
    assert ordered.filter("is_target")["item_id"].to_list() == ["a"]


@pytest.mark.parametrize("by", ["random", "joined"])
def test_user_hold_out(events: pl.DataFrame, by: Any) -> None:
    train, valid, test = (
        rows_of(p) for p in split_events(events, "users", by=by, fractions=(0.5, 0.25, 0.25))
    )
    users = [{row["user_id"] for row in part} for part in (train, valid, test)]
    assert len(users[0]) == 20 and not (users[0] & users[1] or users[0] & users[2] or users[1] & users[2])
    sizes = dict(events.group_by("user_id").len().iter_rows())
    assert len(train) == sum(sizes[user] for user in users[0])
    assert Counter(row["user_id"] for row in valid + test) == {u: sizes[u] for u in users[1] | users[2]}
    assert len(targets_of(test)) == len(users[2])
    if by == "joined":
        joined = dict(events.group_by("user_id").agg(pl.col("timestamp").min()).iter_rows())
        assert max(joined[u] for u in users[0]) <= min(joined[u] for u in users[1])
        assert max(joined[u] for u in users[1]) <= min(joined[u] for u in users[2])


def test_random_users_are_spread_evenly() -> None:
    events = pl.DataFrame({"user_id": [f"{i:04d}" for i in range(2000)], "item_id": "x", "timestamp": 1.0})
    drawn = [set(select_users(events, by="random", fraction=0.5, seed=seed)["user_id"]) for seed in range(20)]
    assert all(len(users) == 1000 for users in drawn)
    kept = Counter(user for users in drawn for user in users)
    assert 3 <= min(kept[user] for user in events["user_id"]) and max(kept.values()) <= 18
    for users in drawn:
        # Neighbours are drawn independently: of 1,999 pairs about half hold one user of each side.
        sides = [user in users for user in events["user_id"]]
        assert 850 < sum(a != b for a, b in zip(sides, sides[1:], strict=False)) < 1150
        assert 420 < sum(sides[:1000]) < 580


@pytest.mark.parametrize("by", ["random", "joined"])
def test_cohorts(events: pl.DataFrame, by: Any) -> None:
    first = select_users(events, by=by, fraction=0.8, seed=1)
    rest = select_users(events, by=by, fraction=0.8, keep="rest", seed=1)
    assert first["user_id"].n_unique() == 32 and rest["user_id"].n_unique() == 8
    assert sorted(first["order"].to_list() + rest["order"].to_list()) == list(range(len(events)))
    relation = select_users(duckdb.connect().from_arrow(events.to_arrow()), by=by, fraction=0.8, seed=1)
    assert relation.pl().sort("order").equals(first.sort("order"))
    again = select_users(events.sample(fraction=1, shuffle=True, seed=5), by=by, fraction=0.8, seed=1)
    assert again.sort("order").equals(first.sort("order"))
    train, _, test = split_events(rest, "leave-n-out", n_test=1, n_valid=0)
    assert set(test["user_id"]) <= set(rest["user_id"]) and "is_target" in train.columns
    with pytest.raises(ValueError, match="without any"):
        select_users(events.head(1), by=by)


def test_datasets_come_back_as_datasets(events: pl.DataFrame) -> None:
    from datasets import Dataset

    parts = split_events(Dataset.from_polars(events), "leave-one-out")
    assert all(isinstance(part, Dataset) for part in parts)
    wanted = split_events(events, "leave-one-out")
    assert [rows_of(part.to_polars()) for part in parts] == [rows_of(part) for part in wanted]


def test_splitting_a_part_again_replaces_its_flag(events: pl.DataFrame) -> None:
    train = split_events(events, "leave-one-out")[0]
    again = split_events(train, "leave-one-out")
    assert all(part.columns == train.columns for part in again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "random"}, "method is 'random'; allowed are 'temporal', 'leave-n-out'"),
        ({"target": "any"}, "target is 'any'"),
        ({"cuts": (0.9, 0.8)}, "leaves no events in validation"),
        ({"cuts": (0.8, "2030-01-01")}, "leaves no events in test: the .* lie between 1970-01-01T00:00"),
        ({"cuts": (0.8, "soon")}, "cuts holds 'soon'"),
        ({"cuts": (-1, 0.5)}, "cuts holds -1"),
        ({"cuts": (0.5,)}, "give two"),
        ({"method": "leave-n-out", "n_test": 0}, "n_test is 0; give a whole number, at least 1"),
        ({"method": "leave-n-out", "n_test": 50}, "need users with 52 or more events, but the longest"),
        ({"method": "leave-one-out", "n_test": 2}, "use method='leave-n-out'"),
        ({"method": "users", "fractions": (0.5, 0.5, 0.5)}, "fractions is"),
        ({"method": "users", "fractions": (0.98, 0.01, 0.01)}, "more users"),
        ({"method": "users", "by": "age"}, "by is 'age'"),
    ],
)
def test_bad_options(events: pl.DataFrame, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_events(events, **options)


def test_bad_events(events: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match="events is empty"):
        split_events(events.head(0))
    with pytest.raises(ValueError, match="no column 'user_id'"):
        split_events(events.drop("user_id"))
    with pytest.raises(ValueError, match="1 no item_id, 1 no timestamp: drop them"):
        holes = pl.DataFrame({"user_id": ["a", "a"], "item_id": [None, "x"], "timestamp": [1.0, None]})
        split_events(holes, "leave-one-out")
    same = events.with_columns(timestamp=pl.lit(5.0))
    with pytest.raises(ValueError, match="have the timestamp 5: a temporal split has nothing to cut"):
        split_events(same)
    assert len(split_events(same, "leave-one-out")) == 3
    one = events.filter(pl.col("user_id") == events["user_id"].mode()[0])
    with pytest.raises(ValueError, match="events are all of one user"):
        split_events(one, "leave-one-out")
    two = events.filter(pl.col("user_id").is_in(events["user_id"].unique().sort()[:2].to_list()))
    with pytest.raises(ValueError, match="of 2 users that puts"):
        split_events(two, "users")


def test_descriptions() -> None:
    assert SplitProtocol("leave-one-out").describe() == (
        "leave-one-out, last event is the target, the 1 event before for validation, "
        "users with at least 3 events"
    )
    assert SplitProtocol("leave-n-out", n_test=10, n_valid=0).describe() == (
        "leave-n-out, last 10 events are targets, users with at least 11 events"
    )
    assert SplitProtocol(cuts=(0.8, "2020-01-01")).describe() == (
        "global temporal split, validation from the 0.8 quantile of event times, "
        "test from 2020-01-01T00:00:00Z, each user's last event of the window is the target, "
        "targets with at least 1 earlier event"
    )
    assert "by joining date, 0.8 / 0.1 / 0.1" in SplitProtocol("users", by="joined").describe()
