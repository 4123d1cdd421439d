"""The training room: the trainer's invariants and what it saves."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from recbert.backends import TorchScorer
from recbert.evaluation import RankingMetrics, rank_targets
from recbert.inputs import TargetRows
from recbert.objectives import MaskedItem, NextItem
from recbert.tokenizer import ItemTokenizer
from recbert.training import RecTrainer, RecTrainingArguments, last_checkpoint
from recbert.training.figures import MAIN_METRICS
from tests.training_runs import (
    BEST_EPOCH,
    ITEMS,
    MAX_LENGTH,
    OBJECTIVES,
    TOKENIZER,
    TRAIN,
    VALID,
    circle_row,
    figures,
    losses,
    tiny_arguments,
    tiny_model,
    tiny_objective,
    tiny_trainer,
    weights,
)


class _Stop(TrainerCallback):
    """Ctrl-C after a number of steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


# Losses


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_accumulated_batches_equal_one_batch(objective: str, tmp_path: Path) -> None:
    runs = []
    for size, accumulated in ((8, 1), (4, 2)):
        trainer = tiny_trainer(
            tmp_path, objective, per_device_train_batch_size=size, gradient_accumulation_steps=accumulated
        )
        trainer.train()
        runs.append(trainer)
    assert len(losses(runs[0])) == 6
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=1e-5)
    whole = weights(runs[0].model)
    for name, weight in weights(runs[1].model).items():
        torch.testing.assert_close(weight, whole[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_first_loss_is_the_models_own(objective: str, tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, objective, per_device_train_batch_size=16, num_train_epochs=1)
    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["labels"][:, 1:] if objective == "next-item" else batch["labels"]
    model = tiny_model(objective).eval()
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    trainer.train()
    assert losses(trainer) == pytest.approx([expected.item()], rel=1e-5)


def test_masks_change_with_the_epoch(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, "masked-item", per_device_train_batch_size=16, learning_rate=0.0)
    trainer.train()
    first, second, third = losses(trainer)
    assert first != second != third


# Resuming


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("saving", "step"), [({"save_strategy": "steps", "save_steps": 4}, 4), ({"save_strategy": "epoch"}, 6)]
)
def test_resumed_run_has_the_losses_of_the_uninterrupted_one(
    objective: str, saving: dict[str, Any], step: int, tmp_path: Path
) -> None:
    """Three steps an epoch: step 4 is in the middle of the second, step 6 at its end."""
    saving = saving | {"num_train_epochs": 4}
    whole = tiny_trainer(tmp_path / "whole", objective, dropout=0.2, **saving)
    whole.train()
    assert len(losses(whole)) == 12
    killed = tiny_trainer(tmp_path / "killed", objective, dropout=0.2, callbacks=(_Stop(step + 1),), **saving)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    checkpoint = last_checkpoint(tmp_path / "killed")
    assert checkpoint is not None and checkpoint.endswith(f"checkpoint-{step}")
    resumed = tiny_trainer(tmp_path / "killed", objective, dropout=0.2, **saving)
    resumed.train(resume_from_checkpoint=checkpoint)
    assert losses(resumed) == losses(whole)
    assert figures(resumed) == figures(whole)
    expected = weights(whole.model)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(resumed.model).items())


def test_last_checkpoint_is_a_whole_one(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "absent") is None
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-11").mkdir()  # cut off while it was written
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


# Evaluation, early stopping and the best epoch


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_best_epoch_by_full_catalogue_ndcg_is_kept(objective: str, tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, objective, num_train_epochs=12, early_stopping_patience=4, **BEST_EPOCH)
    trainer.train()
    ndcg = [entry["eval_ndcg@10"] for entry in figures(trainer)]
    best = int(np.argmax(ndcg))
    assert len(ndcg) == min(best + 5, 12)
    assert trainer.state.best_metric == ndcg[best] > ndcg[0]
    assert trainer.state.best_global_step == 3 * (best + 1)
    model = trainer.model.eval()
    scorer = TorchScorer(model, tiny_objective(objective).input_format, [1] * 12)
    ranking = rank_targets(scorer, TargetRows(VALID))
    assert len(ranking) == 10
    assert RankingMetrics().value(ranking, "ndcg@10") == pytest.approx(ndcg[best])
    assert trainer.evaluate()["eval_ndcg@10"] == pytest.approx(ndcg[best])


def test_patience_of_zero_trains_to_the_end(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, learning_rate=0.0, early_stopping_patience=0, **BEST_EPOCH)
    trainer.train()
    assert len(figures(trainer)) == 3


def test_training_logs_the_main_metrics_and_the_one_that_chooses(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, metric_for_best_model="eval_recall@5", **BEST_EPOCH)
    trainer.train()
    assert set(figures(trainer)[0]) == {f"eval_{name}" for name in (*MAIN_METRICS, "recall@5")}
    assert trainer.state.best_metric == max(entry["eval_recall@5"] for entry in figures(trainer))
    assert {"eval_f1@20", "eval_novelty@10", "eval_accuracy"} <= trainer.evaluate().keys()


def test_training_needs_no_validation_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = tiny_arguments(tmp_path, num_train_epochs=1, **BEST_EPOCH)
    trainer = RecTrainer(
        tiny_model("next-item"), arguments, objective=tiny_objective("next-item"), data={"train": TRAIN}
    )
    trainer.train()
    assert "no validation part" in caplog.text
    assert figures(trainer) == []
    assert arguments.load_best_model_at_end  # the caller's object is as it was
    with pytest.raises(ValueError, match="no validation part"):
        trainer.evaluate()
    assert trainer.evaluate(VALID)["eval_hit@10"] > 0
    assert trainer.predict(VALID).metrics["test_hit@10"] > 0


def test_tensorboard_records_losses_and_metrics(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = tiny_trainer(tmp_path, report_to="tensorboard", num_train_epochs=1)
    trainer.train()
    (events,) = tmp_path.rglob("events.out.tfevents*")
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    assert "train/loss" in tags
    assert any(tag.startswith("eval/ndcg") for tag in tags)


# What is refused


def test_model_that_looks_the_wrong_way_is_refused(tmp_path: Path) -> None:
    for objective, other in (OBJECTIVES, OBJECTIVES[::-1]):
        with pytest.raises(ValueError, match=f"objective='{objective}'"):
            RecTrainer(
                tiny_model(other),
                tiny_arguments(tmp_path),
                objective=tiny_objective(objective),
                data={"train": TRAIN},
            )


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("llama", "llama takes no notice"),
        ("mamba", "mamba takes no positions"),
        ("gru", "recbert-recurrent takes no notice"),
    ],
)
def test_right_anchoring_needs_positions_that_are_learned(family: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        RecTrainer(
            tiny_model("next-item", family=family),
            tiny_arguments(tmp_path),
            objective=NextItem(TOKENIZER, MAX_LENGTH, anchoring="right"),
            data={"train": TRAIN},
        )
    with pytest.raises(ValueError, match="packing is true and anchoring 'right'"):
        RecTrainer(
            tiny_model("next-item"),
            tiny_arguments(tmp_path, packing=True),
            objective=NextItem(TOKENIZER, MAX_LENGTH, anchoring="right"),
            data={"train": TRAIN},
        )


def test_model_too_small_is_refused(tmp_path: Path) -> None:
    more = ItemTokenizer.from_items([*ITEMS, "one more"])
    for objective, message in (
        (NextItem(more, MAX_LENGTH), "82 tokens, the model only 81 rows"),
        (NextItem(TOKENIZER, MAX_LENGTH + 1), "max_length=9"),
    ):
        with pytest.raises(ValueError, match=message):
            RecTrainer(
                tiny_model("next-item"), tiny_arguments(tmp_path), objective=objective, data={"train": TRAIN}
            )


def test_data_without_anything_to_learn_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments, objective = tiny_arguments(tmp_path), tiny_objective("next-item")
    single = circle_row(0, 1)
    with pytest.raises(ValueError, match="no training sequence has 2 or more known events"):
        RecTrainer(tiny_model("next-item"), arguments, objective=objective, data={"train": [single]})
    with caplog.at_level(logging.WARNING):
        RecTrainer(tiny_model("next-item"), arguments, objective=objective, data={"train": [*TRAIN, single]})
    assert "1 training sequences are too short" in caplog.text


def test_masked_item_learns_from_one_event(tmp_path: Path) -> None:
    objective = MaskedItem(TOKENIZER, MAX_LENGTH)
    trainer = RecTrainer(
        tiny_model("masked-item"),
        tiny_arguments(tmp_path, num_train_epochs=1),
        objective=objective,
        data={"train": [circle_row(start, 1) for start in range(3)]},
    )
    trainer.train()
    assert trainer.popularity.tolist() == [1, 1, 1, *[0] * 9]


@pytest.mark.parametrize(
    "values",
    [
        {"push_to_hub": True},
        {"early_stopping_patience": -1},
        {"train_sampling_strategy": "batch_rebalance"},
        {"label_smoothing_factor": 0.1},
    ],
)
def test_arguments_refuse_what_they_do_not_do(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        tiny_arguments(tmp_path, **values)


def test_arguments_default_to_ndcg_and_length_groups(tmp_path: Path) -> None:
    arguments = RecTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert arguments.metric_for_best_model == "ndcg@10"
    assert arguments.load_best_model_at_end and arguments.greater_is_better
    assert arguments.train_sampling_strategy == "group_by_length"
    assert arguments.report_to == ["tensorboard"]
