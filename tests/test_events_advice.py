"""The advice in the report of a table: which numbers lead to which choice."""

from typing import Any

import polars as pl
import pytest

from recbert.events import clean_events
from recbert.events.advice import advise


def advice(
    lengths: list[tuple[int, int]], items: int = 100, gaps: list[list[float]] | None = None, ties: int = 0
) -> str:
    """The advice for users by length of history."""
    statistics: dict[str, Any] = {
        "events": sum(length * users for length, users in lengths),
        "users": sum(users for _, users in lengths),
        "items": items,
    }
    distributions = {"history_lengths": [list(pair) for pair in lengths], "gaps": gaps or []}
    lines = advise(statistics, distributions, ties)
    assert 8 <= len(lines) <= 15
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        (
            [(5, 96), (12, 3), (900, 1)],
            "sequences.max_length: 10: it holds the whole history of 96% of users",
        ),
        ([(5, 90), (12, 10)], "sequences.max_length: 20: it holds the whole history of 100% of users"),
        ([(900, 9), (5, 1)], "sequences.max_length: 200: it holds the whole history of 10% of users"),
        ([(900, 10)], "sequences.windows: sliding: 78% of the events lie before"),
        ([(5, 90), (12, 10)], "sequences.windows: last: only 0.0%"),
        ([(1, 50), (2, 49), (80, 1)], "50% of users have at most 1, 95% of users have at most 2, 99% of "),
    ],
)
def test_length_follows_the_histories(lengths: list[tuple[int, int]], expected: str) -> None:
    assert expected in advice(lengths)
    assert advice(lengths) == advice(lengths[::-1])


@pytest.mark.parametrize(
    ("users", "items", "expected"),
    [
        (20_000, 12_000, ("hidden_size: 64, model.num_hidden_layers: 2", "dropout: 0.5", "batch_size: 128")),
        (200_000, 10_000, ("hidden_size: 128, model.num_hidden_layers: 3", "dropout: 0.3", "loss: full")),
        (2_000_000, 10_000, ("hidden_size: 256", "dropout: 0.1", "15,625 steps an epoch")),
        (2_000_000, 200_000, ("dropout: 0.3", "loss: sampled, with objective.negatives 1024")),
        (600, 100, ("batch_size: 16: 38 steps an epoch",)),
        (3, 100, ("batch_size: 16: 1 steps an epoch",)),
    ],
)
def test_sizes_follow_events_items_and_users(users: int, items: int, expected: tuple[str, ...]) -> None:
    text = advice([(10, users)], items)
    for part in expected:
        assert part in text


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([], "time: no user has two events"),
        ([[0.0, 9]], "time encoding: none"),
        (
            [[0.0, 5], [10.0, 67], [1e6, 28]],
            "72% of the gaps between a user's events are under a minute, 5% ",
        ),
        ([[0.0, 5], [10.0, 67], [1e6, 28]], "times look like those of an import"),
        ([[10.0, 40], [1e6, 60]], "time encoding: gaps are worth trying"),
        ([[0.0, 60], [10**4.75, 40]], "times are whole days"),
    ],
)
def test_time_follows_the_gaps(gaps: list[list[float]], expected: str) -> None:
    assert expected in advice([(10, 11)], gaps=gaps)
    assert "10% of the events share user and time" in advice([(10, 10)], gaps=[[0.0, 9]], ties=10)


def test_the_report_holds_the_advice(events: pl.DataFrame) -> None:
    _, report = clean_events(events)
    assert report.advice() == clean_events(events.sort("item_id"))[1].advice()
    page = report.to_markdown()
    assert all(f"- {line}\n" in page for line in report.advice())
    assert "time encoding: gaps are worth trying" in page
