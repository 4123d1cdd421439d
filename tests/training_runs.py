"""Small training runs that several tests compare."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback, set_seed

from recbert.models import build_model
from recbert.objectives import MaskedItem, NextItem, SampledSoftmax, UniformSampler
from recbert.tokenizer import ItemTokenizer
from recbert.training import RecTrainer, RecTrainingArguments

ITEMS = [f"item {number:02}" for number in range(12)]
TOKENIZER = ItemTokenizer.from_items(ITEMS)
CIRCLE = TOKENIZER.encode(ITEMS * 3)
OBJECTIVES = ("next-item", "masked-item")
MAX_LENGTH = 8
BEST_EPOCH = {"save_strategy": "epoch", "load_best_model_at_end": True}


def circle_row(start: int, length: int, *, targets: int | None = None) -> dict[str, Any]:
    """One user who goes round the twelve items; the last `targets` events are to be predicted."""
    known = 0 if targets is None else length - targets
    return {
        "user_id": f"user {start}",
        "input_ids": CIRCLE[start : start + length],
        "timestamps": [float(place) for place in range(length)],
        "is_target": [place >= known for place in range(length)],
    }


# Ten rows: with global batches of eight (or four) two are left over, which two processes have to share.
TRAIN = [circle_row(start, 2 + start * 5 % 8) for start in range(10)]
VALID = [circle_row(start, 4 + start % 3, targets=1 + start % 2) for start in range(7)]


def tiny_model(
    objective: str, *, family: str | None = None, dropout: float = 0.0, seed: int = 0
) -> PreTrainedModel:
    """One layer, 16 wide, always with the same weights; gpt2 or bert, which has an item bias, by default."""
    set_seed(seed)
    return build_model(
        family or {"next-item": "gpt2", "masked-item": "bert"}[objective],
        TOKENIZER,
        objective=objective,
        hidden_size=16,
        num_hidden_layers=1,
        dropout=dropout,
        max_length=MAX_LENGTH,
    )


def tiny_objective(name: str, negatives: int | None = None) -> NextItem | MaskedItem:
    """The objective of that name for the twelve items, with the full softmax or a sampled one."""
    loss = SampledSoftmax(negatives, sampler=UniformSampler(len(ITEMS))) if negatives else None
    kind = NextItem if name == "next-item" else MaskedItem
    return kind(TOKENIZER, MAX_LENGTH, loss=loss)


def tiny_arguments(folder: Path, **changes: Any) -> RecTrainingArguments:
    """Three epochs, every step logged, nothing else written."""
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 3,
        "num_train_epochs": 3,
        "learning_rate": 1e-2,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 5,
    }
    return RecTrainingArguments(output_dir=str(folder), **(defaults | changes))


def tiny_trainer(
    folder: Path,
    objective: str = "next-item",
    *,
    dropout: float = 0.0,
    callbacks: tuple[TrainerCallback, ...] = (),
    model: PreTrainedModel | None = None,
    negatives: int | None = None,
    **changes: Any,
) -> RecTrainer:
    """A trainer of the tiny model on the circle; `changes` are training arguments."""
    return RecTrainer(
        model or tiny_model(objective, dropout=dropout),
        tiny_arguments(folder, **changes),
        objective=tiny_objective(objective, negatives),
        data={"train": TRAIN, "valid": VALID},
        callbacks=callbacks,
    )


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def losses(trainer: RecTrainer) -> list[float]:
    """The loss of every optimiser step."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def figures(trainer: RecTrainer) -> list[dict[str, float]]:
    """The metrics of every evaluation, without the times."""
    return [
        {name: value for name, value in entry.items() if "@" in name}
        for entry in trainer.state.log_history
        if "eval_ndcg@10" in entry
    ]


def global_batch_run(folder: Path, objective: str, processes: int) -> dict[str, Any]:
    """Train with eight rows a step, whatever the number of processes, and give everything comparable."""
    trainer = tiny_trainer(
        folder, objective, per_device_train_batch_size=4 // processes, gradient_accumulation_steps=2
    )
    trainer.train()
    trainer.save_model(folder / objective)
    assert trainer.ranking is not None
    return {
        "losses": losses(trainer),
        "figures": figures(trainer),
        "ranks": trainer.ranking.ranks.tolist(),
        "users": trainer.ranking.users,
        "gradients": [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry],
        "weights": sum(parameter.double().abs().sum().item() for parameter in trainer.model.parameters()),
    }
