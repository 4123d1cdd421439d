"""Cleaning: each step drops what it says, on polars as on DuckDB, and the report tells it."""

import json
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from recbert.events import (
    ITEM_ID,
    ORDER,
    TIMESTAMP,
    USER_ID,
    VALUE,
    CleaningReport,
    CleaningSteps,
    clean_events,
    pseudonymise,
    read_pseudonym_key,
)

KEY = b"0123456789abcdef"


def table(*rows: tuple[Any, ...]) -> pl.DataFrame:
    """Rows of (user, item, time, value) as a canonical table."""
    schema = {USER_ID: pl.String, ITEM_ID: pl.String, TIMESTAMP: pl.Float64, VALUE: pl.Float64}
    frame = pl.DataFrame(list(rows), schema=schema, orient="row")
    return frame.with_row_index(ORDER).with_columns(pl.col(ORDER).cast(pl.Int64))


def relation(frame: pl.DataFrame) -> duckdb.DuckDBPyRelation:
    return duckdb.connect().from_arrow(frame.to_arrow())


def clean(frame: pl.DataFrame, **options: Any) -> tuple[pl.DataFrame, CleaningReport]:
    """Clean on polars and on DuckDB, which must agree, and give what both answer."""
    steps = CleaningSteps(**options)
    answer, report = clean_events(frame, steps)
    assert isinstance(answer, pl.DataFrame)
    other, other_report = clean_events(relation(frame), steps)
    assert isinstance(other, duckdb.DuckDBPyRelation)
    assert other.pl().sort(ORDER).equals(answer)
    assert other_report.to_dict() == report.to_dict()
    return answer, report


def test_nothing_asked_nothing_done(events: pl.DataFrame) -> None:
    answer, report = clean(events)
    assert answer.equals(events)
    assert report.steps == [] and report.ties == 0
    assert report.statistics["users"] == 4 and report.statistics["items"] == 5
    assert report.statistics["event_types"] == {"buy": 6, "view": 6}


def test_drop_invalid() -> None:
    frame = table(
        ("a", "x", 1, 1), (None, "x", 1, 1), ("a", None, 2, 1), ("a", "y", None, 1), ("a", "z", 3, None)
    )
    answer, report = clean(frame, drop_invalid=True)
    assert answer[ORDER].to_list() == [0, 4]
    (step,) = report.steps
    assert (step.name, step.rows_in, step.rows_out, len(step.examples)) == ("drop_invalid", 5, 2, 3)
    assert step.examples[0][ORDER] == 1 and step.examples[0][USER_ID] is None


def test_filters(events: pl.DataFrame) -> None:
    answer, report = clean(
        events, keep_event_types=["buy"], min_value=4.5, start=250, end="1970-01-01T00:09:10"
    )
    assert answer[ORDER].to_list() == [2, 5]
    assert [(step.name, step.rows_in, step.rows_out) for step in report.steps] == [
        ("keep_event_types", 12, 6), ("min_value", 6, 4), ("start", 4, 3), ("end", 3, 2),
    ]  # fmt: skip


def test_duplicates_and_repeats() -> None:
    frame = table(("a", "x", 1, 1), ("b", "x", 1, 1), ("a", "x", 1, 1), ("a", "x", 1, 2), ("a", "y", 2, 1),
                  ("a", "x", 3, 1), ("a", "x", 4, 1), ("a", "x", 1, None), ("a", "x", 1, None))  # fmt: skip
    answer, _ = clean(frame, drop_duplicates=True)
    assert answer[ORDER].to_list() == [0, 1, 3, 4, 5, 6, 7]
    answer, report = clean(frame, drop_repeats=True)
    assert answer[ORDER].to_list() == [0, 1, 4, 5]
    assert report.steps[0].reason == "the user's previous event has the same item"


def test_ties_are_counted() -> None:
    frame = table(("a", "x", 1, 1), ("a", "y", 1, 1), ("a", "z", 2, 1), ("b", "x", 1, 1))
    _, report = clean(frame)
    assert report.ties == 2 and report.tie_rule == "the order column"
    _, report = clean_events(relation(frame.drop(ORDER)))
    assert report.tie_rule.startswith("the item id")


def brute_core(frame: pl.DataFrame, users: int, items: int) -> list[int]:
    rows = frame.select(USER_ID, ITEM_ID, ORDER).rows()
    while True:
        by_user = [row[0] for row in rows]
        by_item = [row[1] for row in rows]
        left = [row for row in rows if by_user.count(row[0]) >= users and by_item.count(row[1]) >= items]
        if len(left) == len(rows):
            return sorted(row[2] for row in rows)
        rows = left


@pytest.mark.parametrize(("users", "items"), [(2, 2), (3, 2), (0, 3), (6, 0), (3, 3)])
def test_core_equals_brute_force(users: int, items: int) -> None:
    rows = [(f"u{i * i % 17}", f"i{i * 7 % 23 * (i % 3)}", float(i), 1.0) for i in range(80)]
    frame = table(*rows)
    answer, _ = clean(frame, min_user_count=users, min_item_count=items)
    assert answer[ORDER].to_list() == brute_core(frame, users, items)
    assert 0 < answer.height < frame.height
    by_keywords, _ = clean_events(frame, min_user_count=users, min_item_count=items)
    assert by_keywords.equals(answer)


def test_core_takes_several_rounds() -> None:
    # A chain: each user and item has two events until an end of it falls.
    chain = [(f"u{i + j}", f"i{i}", float(i), 1.0) for i in range(6) for j in (0, 1)]
    square = [("p", "x", 1.0, 1.0), ("p", "y", 2.0, 1.0), ("q", "x", 3.0, 1.0), ("q", "y", 4.0, 1.0)]
    answer, report = clean(table(*chain, *square), min_user_count=2, min_item_count=2)
    assert set(answer[USER_ID]) == {"p", "q"}
    assert report.steps[0].rows_out == 4


def test_nothing_left_is_an_error(events: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match="the step 'k_core' .* dropped the last 12"):
        clean_events(events, min_item_count=100)
    with pytest.raises(ValueError, match="holds no events"):
        clean_events(events[:0])


def test_users_with_implausibly_many_events(events: pl.DataFrame) -> None:
    answer, report = clean(events, max_events_per_user=3)
    assert set(answer[USER_ID]) == {"bob", "cleo", "dan"}
    assert report.steps[0].rows_in - report.steps[0].rows_out == 4


def test_sessions() -> None:
    frame = table(
        ("a", "x", 0, 1), ("b", "x", 0, 1), ("a", "y", 60, 1), ("a", "z", 121, 1), ("a", "w", 9000, 1)
    )
    answer, _ = clean(frame, session_gap_minutes=1)
    assert answer["session_id"].to_list() == [0, 0, 0, 1, 2]
    assert answer["session_id"].dtype == pl.Int64


def test_impute_times() -> None:
    frame = table(("a", "x", None, 1), ("a", "x", 10, 1), ("a", "y", None, 1), ("a", "z", 20, 1),
                  ("a", "w", None, 1),                  ("b", "x", None, 1), ("c", "x", 90, 1))  # fmt: skip
    answer, report = clean(frame, impute_time="neighbours")
    assert answer[TIMESTAMP].to_list() == [10, 10, 15, 20, 20, None, 90]
    assert answer["timestamp_imputed"].to_list() == [True, False, True, False, True, False, False]
    assert report.steps[0].changed == 3
    answer, _ = clean(frame, impute_time="neighbours", drop_invalid=True)
    assert answer.height == 6
    answer, report = clean(frame, impute_time="median")
    assert answer[TIMESTAMP].to_list() == [15, 10, 15, 20, 15, 20, 90]
    assert report.steps[0].changed == 4
    with pytest.raises(ValueError, match="needs the column 'order'"):
        clean_events(frame.drop(ORDER), CleaningSteps(impute_time="neighbours"))


def test_impute_values() -> None:
    frame = table(("a", "x", 1, 2.0), ("a", "y", 2, None), ("a", "z", 3, 5.0), ("b", "x", 1, None))
    answer, _ = clean(frame, impute_value="neighbours")
    assert answer[VALUE].to_list() == [2.0, 3.5, 5.0, None]
    answer, _ = clean(frame, impute_value="median")
    assert answer[VALUE].to_list() == [2.0, 3.5, 5.0, 3.5]
    assert answer["value_imputed"].to_list() == [False, True, False, True]


def test_kinds_are_kept(events: pl.DataFrame) -> None:
    expected, _ = clean_events(events, min_item_count=2)
    lazy, _ = clean_events(events.lazy(), min_item_count=2)
    assert isinstance(lazy, pl.LazyFrame) and lazy.collect().equals(expected)
    pandas, _ = clean_events(events.to_pandas(), min_item_count=2)
    assert isinstance(pandas, pd.DataFrame) and pl.from_pandas(pandas).equals(expected)
    arrow, _ = clean_events(events.to_arrow(), min_item_count=2)
    assert isinstance(arrow, pa.Table) and pl.DataFrame(arrow).equals(expected)
    dataset, _ = clean_events(datasets.Dataset.from_list(events.to_dicts()), min_item_count=2)
    assert isinstance(dataset, datasets.Dataset) and len(dataset) == expected.height


def test_duckdb_connection_is_left_as_it_was(events: pl.DataFrame) -> None:
    connection = duckdb.connect()
    clean_events(connection.from_arrow(events.to_arrow()), CleaningSteps(drop_repeats=True, min_user_count=2))
    assert connection.execute("show all tables").fetchall() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_item_count": -1}, "min_item_count=-1 must be 0"),
        ({"session_gap_minutes": 0}, "must be above 0"),
        ({"keep_event_types": "buy"}, "must be a list"),
        ({"start": "soon"}, "start='soon' must be an ISO 8601 date"),
        ({"start": "2020-01-02", "end": "2020-01-01"}, "must lie before"),
        ({"impute_time": "mean"}, "must be one of median, neighbours"),
        ({"min_value": 1.0}, "needs the column 'value'"),
        ({"keep_event_types": ["buy"]}, "needs the column 'event_type'"),
    ],
)
def test_bad_options(events: pl.DataFrame, options: dict[str, Any], message: str) -> None:
    frame = events.drop("event_type", "value") if "needs the column" in message else events
    with pytest.raises(ValueError, match=message):
        clean_events(frame, CleaningSteps(**options))


def test_raw_tables_are_sent_to_read_events(events: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match="read_events first"):
        clean_events(events.with_columns(pl.lit(1).alias(USER_ID)))
    with pytest.raises(ValueError, match="no column 'timestamp'"):
        clean_events(events.drop(TIMESTAMP))


def test_report_files(events: pl.DataFrame, tmp_path: Path) -> None:
    _, report = clean_events(events, CleaningSteps(drop_repeats=True, min_user_count=3))
    report.save(tmp_path / "report")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "report.json",
        "report.md",
        "report.png",
    ]
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert data == json.loads(json.dumps(report.to_dict()))
    assert data["steps"][1]["rows_in"] == 12 and data["steps"][1]["rows_out"] == 10
    assert sum(count for _, count in data["distributions"]["events_over_time"]) == 10
    assert sum(count for _, count in data["distributions"]["gaps"]) == 10 - 3
    assert data["distributions"]["history_lengths"] == [[3, 2], [4, 1]]
    assert data["distributions"]["popularity"][0] == [1, 3]
    page = (tmp_path / "report" / "report.md").read_text()
    assert "| k_core | the user has fewer than 3 events" in page and "dan" in page
    assert (tmp_path / "report" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_report_of_one_event(tmp_path: Path) -> None:
    _, report = clean(table(("a", "x|y", 5, 1)))
    report.save(tmp_path)
    assert report.distributions["gaps"] == []


def test_pseudonyms(events: pl.DataFrame) -> None:
    answer = pseudonymise(events, KEY)
    assert answer.drop(USER_ID).equals(events.drop(USER_ID))
    assert answer[USER_ID].n_unique() == 4 and answer[USER_ID].str.contains("^[0-9a-f]{32}$").all()
    assert pseudonymise(relation(events), KEY).pl().sort(ORDER).equals(answer)
    assert not set(pseudonymise(events, KEY + b"x")[USER_ID]) & set(answer[USER_ID])
    assert pseudonymise(events.lazy(), KEY).collect().equals(answer)
    with pytest.raises(ValueError, match="has 5 bytes"):
        pseudonymise(events, b"short")


def test_pseudonym_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RECBERT_PSEUDONYM_KEY", raising=False)
    with pytest.raises(ValueError, match="RECBERT_PSEUDONYM_KEY"):
        read_pseudonym_key()
    monkeypatch.setenv("RECBERT_PSEUDONYM_KEY", "s3cret")
    with pytest.raises(ValueError, match="at least 16") as caught:
        read_pseudonym_key()
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("RECBERT_PSEUDONYM_KEY", KEY.decode())
    assert read_pseudonym_key() == KEY
    path = tmp_path / "key"
    path.write_bytes(b"another key of bytes\n")
    assert read_pseudonym_key(file=path) == b"another key of bytes"
    with pytest.raises(FileNotFoundError, match="no pseudonym key file"):
        read_pseudonym_key(file=tmp_path / "none")
