"""The training room: which rows stand together, streams, and what a run does with both."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from recbert.training import RecTrainer
from recbert.training.batches import BatchPlan, BatchShape
from recbert.training.stream import TrainStream, _read_ahead
from tests.training_runs import (
    OBJECTIVES,
    TRAIN,
    VALID,
    circle_row,
    losses,
    tiny_arguments,
    tiny_model,
    tiny_objective,
    tiny_trainer,
    weights,
)

LENGTHS = np.random.default_rng(0).integers(1, 50, 1_003)


def _batches(plan: BatchPlan, epoch: int = 0) -> list[list[int]]:
    plan.set_epoch(epoch)
    batches = list(plan)
    assert all(draw.epoch == epoch for draw in batches)
    assert len(batches) == len(plan)
    return [draw.rows.tolist() for draw in batches]


@pytest.mark.parametrize("tokens", [0, 200])
def test_every_row_comes_once_an_epoch_in_an_order_of_seed_and_epoch(tokens: int) -> None:
    plan = BatchPlan(LENGTHS, BatchShape(8, tokens), seed=1)
    first = _batches(plan)
    assert sorted(sum(first, [])) == list(range(1_003))
    assert _batches(BatchPlan(LENGTHS, BatchShape(8, tokens), seed=1)) == first
    assert _batches(BatchPlan(LENGTHS, BatchShape(8, tokens), seed=2)) != first
    second = _batches(plan, epoch=1)
    assert sorted(sum(second, [])) == list(range(1_003))
    assert second != first and len(second) == len(first)


def test_batches_hold_rows_of_similar_length() -> None:
    grouped = _batches(BatchPlan(LENGTHS, BatchShape(10), seed=0))[:100]
    assert np.mean([np.ptp(LENGTHS[batch]) for batch in grouped]) < 3
    mixed = _batches(BatchPlan(LENGTHS, BatchShape(10), seed=0, order="random"))[:100]
    assert np.mean([np.ptp(LENGTHS[batch]) for batch in mixed]) > 30
    in_order = _batches(BatchPlan(LENGTHS, BatchShape(10), seed=0, order="sequential"))
    assert sum(in_order, []) == list(range(1_003))


def test_token_budget_bounds_rows_times_the_longest() -> None:
    batches = _batches(BatchPlan(LENGTHS, BatchShape(20, tokens=120), seed=0))
    padded = [len(batch) * LENGTHS[batch].max() for batch in batches]
    assert max(padded) <= 120
    assert max(len(batch) for batch in batches) == 20
    # Nearly full, except the few that reach the limit of rows first.
    full = [size for size, batch in zip(padded, batches, strict=True) if len(batch) < 20]
    assert np.mean(full) > 0.8 * 120


@pytest.mark.parametrize("tokens", [0, 200])
@pytest.mark.parametrize("order", ["group_by_length", "random", "sequential"])
def test_processes_share_the_batches_of_one(order: Any, tokens: int) -> None:
    if tokens and order != "group_by_length":
        with pytest.raises(ValueError, match="needs 'group_by_length'"):
            BatchPlan(LENGTHS, BatchShape(8, tokens), 0, order=order)
        return
    one = BatchPlan(LENGTHS, BatchShape(8, tokens, accumulated=3), seed=0, order=order)
    shares = [
        _batches(BatchPlan(LENGTHS, BatchShape(8, tokens, processes=3), 0, order=order, process=process))
        for process in range(3)
    ]
    assert len({len(share) for share in shares}) == 1
    together = [batch for turn in zip(*shares, strict=True) for batch in turn]
    expected = _batches(one)
    assert together[: len(expected)] == expected
    assert all(batch == [] for batch in together[len(expected) :])


def test_drop_last_leaves_out_an_incomplete_turn() -> None:
    plans = [
        BatchPlan(np.full(27, 3), BatchShape(4, processes=2), 0, process=process, drop_last=True)
        for process in range(2)
    ]
    assert [[len(batch) for batch in _batches(plan)] for plan in plans] == [[4, 4, 4]] * 2


def test_budget_smaller_than_a_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_tokens_per_batch is 48, .* give at least 49"):
        BatchPlan(LENGTHS, BatchShape(8, tokens=48), seed=0)
    with pytest.raises(ValueError, match="max_tokens_per_batch is -1"):
        tiny_arguments(tmp_path, max_tokens_per_batch=-1)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_token_budget_changes_no_loss_of_an_epoch(objective: str, tmp_path: Path) -> None:
    """With a learning rate of 0 the losses, weighted by their labels, are those of one large batch."""
    runs = []
    for budget in (0, 18):
        trainer = tiny_trainer(
            tmp_path,
            objective,
            per_device_train_batch_size=16,
            gradient_accumulation_steps=1 if budget == 0 else 10,
            max_tokens_per_batch=budget,
            learning_rate=0.0,
            num_train_epochs=1,
        )
        trainer.train()
        runs.append(losses(trainer))
    assert len(runs[0]) == len(runs[1]) == 1
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)


def test_packing_without_a_gpu_says_so_and_groups(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    packed = tiny_trainer(tmp_path, packing=True)
    assert "packing is true, but the device is cpu" in caplog.text
    plain = tiny_trainer(tmp_path)
    packed.train()
    plain.train()
    assert losses(packed) == losses(plain)
    with pytest.raises(ValueError, match="masked-item rows cannot be packed"):
        tiny_trainer(tmp_path, "masked-item", packing=True)


# Streams


def _stream(part: list[dict[str, Any]] = TRAIN) -> datasets.IterableDataset:
    return datasets.Dataset.from_list(part).to_iterable_dataset(num_shards=2)


def _streaming_trainer(folder: Path, part: Any, **changes: Any) -> RecTrainer:
    arguments = tiny_arguments(
        folder, **({"eval_strategy": "steps", "eval_steps": 4, "max_steps": 6} | changes)
    )
    return RecTrainer(
        tiny_model("next-item"),
        arguments,
        objective=tiny_objective("next-item"),
        data={"train": part, "valid": VALID},
    )


def test_stream_trains_as_the_rows_in_memory(tmp_path: Path) -> None:
    plain = _streaming_trainer(tmp_path, datasets.Dataset.from_list(TRAIN), per_device_train_batch_size=16)
    streamed = _streaming_trainer(tmp_path, _stream(), per_device_train_batch_size=16)
    plain.train()
    streamed.train()
    # A batch holds all rows, so that their order does not matter.
    assert losses(streamed) == pytest.approx(losses(plain), rel=1e-5)
    assert streamed.popularity.tolist() == plain.popularity.tolist()
    streamed.save_model(tmp_path / "model")


def test_resumed_stream_goes_on_where_it_was(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    whole = _streaming_trainer(tmp_path / "whole", _stream(), **saving)
    whole.train()
    resumed = _streaming_trainer(tmp_path / "whole", _stream(), **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert losses(resumed) == losses(whole)
    expected = weights(whole.model)
    assert all((weight == expected[name]).all() for name, weight in weights(resumed.model).items())


def test_processes_share_a_stream() -> None:
    shape = BatchShape(2, processes=2)
    shares = [TrainStream(_stream(), shape, least=2, seed=0, process=process) for process in range(2)]
    turns = [
        batch for _, *pair in zip(range(3), *shares, strict=False) for batch in pair if batch.is_target.any()
    ]
    rows = np.concatenate([batch.rows for batch in turns])
    assert sorted(rows.tolist()) == list(range(len(TRAIN)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": -1}, "max_steps is -1, but a stream has no length"),
        ({"eval_strategy": "epoch"}, "a stream has no epochs"),
        ({"dataloader_num_workers": 1}, "dataloader_num_workers is 1"),
    ],
)
def test_stream_refuses_what_needs_a_length(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        _streaming_trainer(tmp_path, _stream(), **changes)


def test_stream_without_anything_to_learn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none has 2 or more known events"):
        _streaming_trainer(tmp_path, _stream([circle_row(0, 1)] * 2)).train()


def _breaking(rows: int, then: str) -> datasets.IterableDataset:
    def give() -> Iterator[dict[str, Any]]:
        yield from TRAIN[:rows]
        if then == "stall":
            time.sleep(2)
        else:
            raise OSError("connection reset")

    return datasets.IterableDataset.from_generator(give)


def test_stream_that_breaks_leaves_a_run_to_resume(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 1}
    trainer = _streaming_trainer(tmp_path, _breaking(9, "break"), **saving)
    with pytest.raises(RuntimeError, match="broke after .*connection reset.*resume from the last checkpoint"):
        trainer.train()


def test_stream_that_stalls_says_so() -> None:
    with pytest.raises(RuntimeError, match="stalled: no row for 0.3 s after 4 rows"):
        list(_read_ahead(_breaking(5, "stall"), 2, 0.3))


def test_stream_that_ends_early_says_so() -> None:
    turns = iter([TRAIN, TRAIN[:4]])

    class Shrinking:
        def set_epoch(self, epoch: int) -> None:
            self.part = datasets.Dataset.from_list(next(turns))

        def with_format(self, kind: str) -> Any:
            return self.part.with_format(kind)

    stream = TrainStream(Shrinking(), BatchShape(4), least=2, seed=0)
    with pytest.raises(RuntimeError, match="ended after 4 rows and had 10 the first time"):
        list(stream)
