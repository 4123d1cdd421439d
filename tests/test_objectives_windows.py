"""Windows of prepared data as they are learnt from: each event once, and nothing from the future."""

import numpy as np
import polars as pl
import pytest

from recbert.inputs import Draw, TrainRows
from recbert.objectives import MaskedItem, NextItem
from recbert.sequences import build_sequences
from recbert.splits import split_events
from recbert.tokenizer import ItemTokenizer

BOS = 3


@pytest.mark.parametrize("windows", ["last", "sliding", "prefix"])
@pytest.mark.parametrize("objective_class", [NextItem, MaskedItem])
def test_no_future_event_reaches_a_training_window(
    objective_class: type[NextItem | MaskedItem], windows: str, events: pl.DataFrame
) -> None:
    train, valid, test = split_events(events, "temporal", cuts=(300, 450))
    tokenizer = ItemTokenizer.from_items(events)
    data = build_sequences(train, valid, test, tokenizer=tokenizer, max_length=2, windows=windows)
    objective = objective_class(tokenizer, 2)
    rows = TrainRows(data["train"], least=objective.least_events, seed=0)
    early = events.filter(pl.col("timestamp") < 300)
    allowed = [set(tokenizer.encode(part["item_id"])) for _, part in early.group_by("user_id")]
    assert len(rows) > 0
    for index in range(len(rows)):
        batch = objective.collate(rows.__getitems__(Draw(np.array([index]), 0)))
        seen = [*batch["input_ids"].flatten().tolist(), *batch["labels"].flatten().tolist()]
        events_in = {token for token in seen if token >= 69}
        assert any(events_in <= history for history in allowed)
    assert max(max(row["timestamps"]) for row in data["train"]) < 300


@pytest.mark.parametrize("start_token", [False, True])
@pytest.mark.parametrize(
    ("windows", "max_length"), [("last", 9), ("sliding", 3), ("prefix", 3), ("prefix", 9)]
)
def test_windows_predict_every_event_once_from_what_came_before(
    windows: str, max_length: int, start_token: bool, events: pl.DataFrame
) -> None:
    """All events but each user's first one; behind a start token that too, from an empty history."""
    tokenizer = ItemTokenizer.from_items(events)
    data = build_sequences(events, tokenizer=tokenizer, max_length=max_length - start_token, windows=windows)
    objective = NextItem(tokenizer, max_length, start_token=start_token)
    rows = TrainRows(data["train"], least=objective.least_events, seed=0)
    batch = objective.collate(rows.__getitems__(Draw(np.arange(len(rows)), 0)))
    asked = [
        ([token for token in tokens[:place].tolist() if token != BOS], label)
        for tokens, labels in zip(batch["input_ids"], batch["labels"].tolist(), strict=True)
        for place, label in enumerate(labels)
        if label != -100
    ]
    histories = [
        tokenizer.encode(part.sort("timestamp")["item_id"]) for _, part in events.group_by("user_id")
    ]
    expected = [(row[:place], row[place]) for row in histories for place in range(not start_token, len(row))]
    if windows != "sliding":  # whose later windows know less of what came before
        kept = objective.input_format.history_length
        assert sorted(asked) == sorted((history[-kept:], label) for history, label in expected)
    assert sorted(label for _, label in asked) == sorted(label for _, label in expected)
    if windows == "prefix":
        assert len(rows) == len(asked)
