"""The inputs room: histories become queries, prepared rows become training rows and targets."""

import datasets
import numpy as np
import pytest

from recbert.checkpoint import InputFormat
from recbert.inputs import (
    Draw,
    TargetRows,
    TrainRows,
    build_query,
    group_by_length,
    known_items,
)

NEXT, MASKED = InputFormat("next-item", 4), InputFormat("masked-item", 4)
STARTED = InputFormat("next-item", 4, starts_with_bos=True)
UNK, MASK, BOS = 1, 2, 3


def _ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.int64)


def test_query_of_a_next_item_model_ends_with_the_latest_event() -> None:
    query = build_query([_ids(69, 70, 71, 72, 73), _ids(70)], NEXT)
    assert query.input_ids.tolist() == [[70, 71, 72, 73], [70, 0, 0, 0]]
    assert query.attention_mask is not None
    assert query.attention_mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert build_query([_ids(69, 70), _ids(71, 72)], NEXT).attention_mask is None
    assert query.last.tolist() == [3, 0]


def test_query_of_a_masked_item_model_ends_with_mask() -> None:
    query = build_query([_ids(69, 70, 71, 72, 73), _ids(70)], MASKED)
    assert query.input_ids.tolist() == [[71, 72, 73, MASK], [70, MASK, 0, 0]]
    assert query.last.tolist() == [3, 1]


def test_query_behind_a_start_token_holds_one_event_less() -> None:
    query = build_query([_ids(69, 70, 71, UNK, 72, 73), _ids(70), _ids(71, 72)], STARTED)
    assert query.input_ids.tolist() == [[BOS, 71, 72, 73], [BOS, 70, 0, 0], [BOS, 71, 72, 0]]
    assert query.last.tolist() == [3, 1, 2]
    assert build_query([_ids(70)], STARTED).attention_mask is None


@pytest.mark.parametrize("objective", ["next-item", "masked-item"])
def test_positions_anchored_on_the_right_end_alike(objective: str) -> None:
    left, right = (InputFormat(objective, 4, anchoring) for anchoring in ("left", "right"))  # type: ignore[arg-type]
    histories = [_ids(69, 70, 71), _ids(70), _ids(69, 70, 71, 72, 73)]
    plain, query = build_query(histories, left), build_query(histories, right)
    assert query.input_ids.equal(plain.input_ids) and query.last.equal(plain.last)
    assert not plain.beside and query.attention_mask is not None
    positions = query.beside["position_ids"]
    assert positions.gather(1, query.last[:, None]).tolist() == [[3], [3], [3]]
    steps = positions.diff(dim=1)[query.attention_mask[:, 1:].bool()]
    assert (steps == 1).all() and positions.max() == 3 and positions.min() >= 0
    # The mask stays where all rows are equally long: without one, positions tell packed sequences apart.
    assert build_query([_ids(69)], right).attention_mask is not None


def test_unknown_items_take_no_place_in_a_query() -> None:
    query = build_query([_ids(69, 70, UNK, 71, UNK, 72, 73, UNK)], NEXT)
    assert query.input_ids.tolist() == [[70, 71, 72, 73]]
    assert known_items(_ids(UNK, 70, 5)).tolist() == [70]


@pytest.mark.parametrize("input_format", [NEXT, STARTED])
@pytest.mark.parametrize("history", [_ids(), _ids(UNK, UNK)])
def test_query_without_a_known_item_is_refused(history: np.ndarray, input_format: InputFormat) -> None:
    with pytest.raises(ValueError, match="answer it by popularity"):
        build_query([_ids(70), history], input_format)


def _part() -> list[dict[str, object]]:
    return [
        {"input_ids": [69, UNK, 70, 71], "is_target": [False, True, True, True]},
        {"input_ids": [72], "is_target": [True]},
        {"input_ids": [70, UNK], "is_target": [False, True]},
        {"input_ids": [71, 70], "is_target": [True, True]},
    ]


def test_training_rows_skip_unknown_items_and_rows_without_a_label() -> None:
    rows = TrainRows(_part(), least=2, seed=7)
    assert len(rows) == 2
    assert (rows.unknown, rows.dropped) == (2, 2)
    batch = rows.__getitems__(Draw(_ids(1, 0), 3))
    assert batch.tokens.tolist() == [71, 70, 69, 70, 71]
    assert batch.is_target.tolist() == [True, True, False, True, True]
    assert (batch.lengths.tolist(), batch.rows.tolist()) == ([2, 3], [1, 0])
    assert (batch.seed, batch.epoch) == (7, 3)
    latest = batch.last(2)
    assert (latest.tokens.tolist(), latest.lengths.tolist()) == ([71, 70, 70, 71], [2, 2])
    assert rows.lengths.tolist() == [3, 2]
    assert len(TrainRows(_part(), least=1, seed=7)) == 3


def test_events_of_a_batch_are_taken_with_all_they_have() -> None:
    batch = TrainRows(_part(), least=1, seed=7).__getitems__(Draw(_ids(0, 1), 3))
    taken = batch.take(_ids(2, 0, 0, 3, 3), _ids(3, 2))
    assert taken.tokens.tolist() == [71, 69, 69, *batch.tokens[[3, 3]].tolist()]
    assert taken.is_target.tolist() == [True, False, False, *batch.is_target[[3, 3]].tolist()]
    assert (taken.lengths.tolist(), taken.rows.tolist(), taken.epoch) == ([3, 2], [0, 1], 3)
    started = batch.prepend(BOS)
    assert started.lengths.tolist() == (batch.lengths + 1).tolist()
    assert np.flatnonzero(started.tokens == BOS).tolist() == [0, batch.lengths[0] + 1]
    assert np.array_equal(started.tokens[started.tokens != BOS], batch.tokens)
    assert np.array_equal(started.is_target[started.tokens != BOS], batch.is_target)
    assert not started.is_target[started.tokens == BOS].any()


def test_popularity_counts_the_targets_of_all_rows() -> None:
    for least in (1, 2):
        assert TrainRows(_part(), least=least, seed=0).count_items(5).tolist() == [0, 2, 2, 1, 0]
    assert TrainRows([], least=1, seed=0).count_items(2).tolist() == [0, 0]


def test_popularity_counts_the_context_of_a_users_first_window() -> None:
    prefixes = [
        {"user_id": user, "input_ids": ids, "is_target": [False] * (len(ids) - 1) + [True]}
        for user, ids in (("a", [69, 70]), ("a", [69, 70, 71]), ("b", [69, 72]))
    ]
    assert TrainRows(prefixes, least=2, seed=0).count_items(4).tolist() == [2, 1, 1, 1]


@pytest.mark.parametrize("in_memory", [True, False])
def test_arrow_rows_are_those_of_the_dictionaries(in_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_memory:
        monkeypatch.setattr("recbert.inputs.training._TOKENS_IN_MEMORY", 0)
    random = np.random.default_rng(0)
    lengths = random.integers(1, 9, 60)
    part = [
        {
            "user_id": f"user {number // 2}",
            "input_ids": random.choice([UNK, *range(69, 80)], length).tolist(),
            "is_target": (random.random(length) < 0.7).tolist(),
        }
        for number, length in enumerate(lengths)
    ]
    plain = TrainRows(part, least=2, seed=0)
    pieces = [datasets.Dataset.from_list(part[start : start + 7]) for start in range(0, 60, 7)]
    whole = datasets.concatenate_datasets(pieces)
    order = random.permutation(60)
    for source in (whole, whole.select(order).select(np.argsort(order)), whole.data.table.slice(0)):
        rows = TrainRows(source, least=2, seed=0)
        assert (len(rows), rows.unknown, rows.dropped) == (len(plain), plain.unknown, plain.dropped)
        assert rows.count_items(12).tolist() == plain.count_items(12).tolist()
        draw = Draw(random.permutation(len(plain)), 0)
        for ours, expected in zip(rows.__getitems__(draw), plain.__getitems__(draw), strict=True):
            np.testing.assert_array_equal(ours, expected)


def test_training_part_without_a_column_is_refused() -> None:
    part = datasets.Dataset.from_list(_part()).remove_columns("is_target")
    with pytest.raises(ValueError, match="no column 'is_target'"):
        TrainRows(part, least=2, seed=0)
    part = datasets.Dataset.from_list([{"input_ids": [69, None], "is_target": [True, True]}])
    with pytest.raises(ValueError, match="missing input_ids"):
        TrainRows(part, least=2, seed=0)


def test_filler_has_tokens_and_no_target() -> None:
    filler = TrainRows(_part(), least=2, seed=0).__getitems__(Draw(_ids(), 1))
    assert filler.tokens.tolist() == [69, 69]
    assert not filler.is_target.any()


def test_each_target_has_everything_before_it() -> None:
    targets = TargetRows(
        [
            {
                "user_id": "anna",
                "input_ids": [69, 70, 71],
                "timestamps": [1.0, 2.0, 3.5],
                "is_target": [0, 1, 1],
            },
            {"user_id": "bob", "input_ids": [70], "timestamps": [4.0], "is_target": [False]},
            {"user_id": "cleo", "input_ids": [72, UNK], "timestamps": [5.0, 6.0], "is_target": [False, True]},
        ]
    )
    assert [(t.user, t.history.tolist(), t.token_id, t.request_time) for t in targets] == [
        ("anna", [69], 70, 2.0),
        ("anna", [69, 70], 71, 3.5),
        ("cleo", [72], UNK, 6.0),
    ]
    assert len(targets) == 3
    assert targets.lengths.tolist() == [1, 2, 1]


def test_batches_hold_rows_of_similar_length_once_each() -> None:
    lengths = _ids(1, 5, 3, 5, 2)
    batches = group_by_length(lengths, 2)
    assert [batch.tolist() for batch in batches] == [[1, 3], [2, 4], [0]]
