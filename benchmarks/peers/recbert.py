"""recbert itself, through its public names: RecTrainer and Recommender."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, set_seed

from benchmarks.histories import Histories
from benchmarks.peers import task as given
from benchmarks.peers.task import Meter, Progress, Task, read_task, time_calls
from recbert import (
    ItemTokenizer,
    MaskedItem,
    NextItem,
    RankingMetrics,
    Recommender,
    RecTrainer,
    RecTrainingArguments,
    build_model,
)
from recbert.backends import TorchScorer
from recbert.evaluation import rank_targets
from recbert.inputs import TargetRows
from recbert.objectives import SampledSoftmax, UniformSampler
from recbert.tokenizer import FIRST_ITEM_ID

# Parts of a variant's name, joined by +, and the training argument that each turns on.
VARIANTS = {"bf16": "bf16", "packed": "packing", "compiled": "torch_compile"}
SAMPLED = 1024  # negatives of the quality job's sampled variant


class Laps(TrainerCallback):
    """Takes a lap of a meter at each epoch."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._meter.start()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._meter.stop()


class Goal(TrainerCallback):
    """Ends training at the epoch whose validation reaches the target."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        control.should_training_stop = self._progress.reached(round(state.epoch), metrics["eval_ndcg@10"])


def item_names(items: Any) -> list[str]:
    """Item ids whose alphabetical order is that of the numbers."""
    return [f"{item:07d}" for item in items]


def prepare(histories: Histories, max_length: int = given.LENGTH) -> tuple[Any, ItemTokenizer]:
    """The parts of leave-one-out as `build_sequences` gives them, and a vocabulary of the whole catalogue."""
    import polars as pl  # an image for training may have no data frames, and training rows need none

    from recbert import build_sequences, split_events

    events = {
        "user_id": [str(user) for user in histories.users],
        "item_id": item_names(histories.items),
        "timestamp": histories.places.astype(np.float64),
    }
    tokenizer = ItemTokenizer.from_items(item_names(range(histories.num_items)))
    train, valid, test = split_events(pl.DataFrame(events), "leave-one-out")
    return build_sequences(train, valid, test, tokenizer=tokenizer, max_length=max_length), tokenizer


def prepare_training(
    histories: Histories, max_length: int = given.LENGTH
) -> tuple[list[dict[str, Any]], ItemTokenizer]:
    """The training part alone, as rows without data frames, and a vocabulary of the whole catalogue."""
    tokenizer = ItemTokenizer.from_items(item_names(range(histories.num_items)))
    rows = [row[-max_length - 1 :] + FIRST_ITEM_ID for row in histories.without_last(2).rows()]
    return [{"input_ids": row, "is_target": np.ones(len(row), dtype=bool)} for row in rows], tokenizer


def build_objective(
    job: str, tokenizer: ItemTokenizer, max_length: int = given.LENGTH, negatives: int = given.NEGATIVES
) -> NextItem | MaskedItem:
    if job == "masked-item":
        return MaskedItem(tokenizer, max_length, mask_rate=given.MASK_RATE)
    if job == "sampled-softmax":
        sampler = UniformSampler(tokenizer.num_items)
        return NextItem(tokenizer, max_length, loss=SampledSoftmax(negatives, sampler=sampler))
    return NextItem(tokenizer, max_length)


def build_arguments(folder: Path, **changes: Any) -> RecTrainingArguments:
    """The arguments of a run that writes, logs and validates nothing."""
    values: dict[str, Any] = {
        "per_device_train_batch_size": given.BATCH,
        "learning_rate": given.LEARNING_RATE,
        "num_train_epochs": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": given.DEVICE == "cpu",
        "seed": 0,
    }
    return RecTrainingArguments(output_dir=str(folder), **{**values, **changes})


def build_trainer(
    objective: NextItem | MaskedItem,
    data: Any,
    args: RecTrainingArguments,
    callbacks: tuple[TrainerCallback, ...] = (),
) -> RecTrainer:
    """A trainer of the sizes that all libraries get."""
    set_seed(args.seed)
    kind = objective.input_format
    model = build_model(
        "bert" if kind.objective == "masked-item" else "gpt2",
        objective.tokenizer,
        objective=kind.objective,
        hidden_size=given.HIDDEN,
        num_hidden_layers=given.LAYERS,
        num_attention_heads=given.HEADS,
        dropout=given.DROPOUT,
        max_length=kind.max_length,
    )
    return RecTrainer(model, args, objective=objective, data=data, callbacks=callbacks)


def train(task: Task) -> None:
    rows, tokenizer = prepare_training(task.histories)
    meter = Meter()
    changes = {VARIANTS[name]: True for name in task.variant.split("+") if name}
    args = build_arguments(task.folder, num_train_epochs=task.epochs, seed=task.seed, **changes)
    objective = build_objective(task.job, tokenizer)
    trainer = build_trainer(objective, {"train": rows}, args, (Laps(meter),))
    outcome = trainer.train()
    meter.write(task, loss=outcome.training_loss, steps=trainer.state.global_step)


def reach_quality(task: Task) -> None:
    """Train to the target, validated after each epoch; nothing is saved."""
    data, tokenizer = prepare(task.histories)
    changes = {"eval_strategy": "epoch", "early_stopping_patience": 0}
    args = build_arguments(task.folder, num_train_epochs=task.epochs, seed=task.seed, **changes)
    job = "sampled-softmax" if task.variant == "sampled" else "next-item"
    meter, progress = Meter(), Progress(task)
    meter.start()
    objective = build_objective(job, tokenizer, negatives=SAMPLED)
    trainer = build_trainer(objective, data, args, (Goal(progress),))
    trainer.train()
    meter.stop()
    meter.write(task)


def evaluate(task: Task) -> None:
    data, tokenizer = prepare(task.histories)
    trainer = build_trainer(NextItem(tokenizer, given.LENGTH), data, build_arguments(task.folder))
    meter = Meter()
    meter.start()
    if task.variant == "ranks-only":  # what RePlay's callback computes: no lists, no coverage
        scorer = TorchScorer(trainer.model.eval(), trainer.objective.input_format, trainer.popularity)
        values = RankingMetrics().compute(rank_targets(scorer, TargetRows(data["test"]), k=0))
    else:
        values = trainer.evaluate(data["test"])
    meter.stop()
    ndcg = values.get("eval_ndcg@10", values.get("ndcg@10"))
    meter.write(task, users=len(data["test"]), ndcg=ndcg)


def recommend(task: Task) -> None:
    data, tokenizer = prepare(task.histories)
    trainer = build_trainer(NextItem(tokenizer, given.LENGTH), data, build_arguments(task.folder))
    trainer.save_model(task.folder / "model")
    recommender = Recommender.from_pretrained(task.folder / "model")
    users = np.random.default_rng(task.seed).permutation(len(task.histories.lengths))
    rows = task.histories.rows()
    asked = [item_names(rows[user]) for user in users[: given.CROWD]]

    def call(histories: Any) -> Any:
        return recommender.recommend(histories, k=10)

    meter = Meter()
    if task.job == "recommend-many":
        meter.write(task, **time_calls(call, [asked] * 5, meter), histories=len(asked))
    else:
        meter.write(task, **time_calls(call, asked[: given.CALLS], meter))


if __name__ == "__main__":
    task = read_task()
    logging.disable(logging.WARNING)
    torch.set_num_threads(task.threads)
    jobs = {
        "quality": reach_quality,
        "evaluate": evaluate,
        "recommend-one": recommend,
        "recommend-many": recommend,
    }
    jobs.get(task.job, train)(task)
