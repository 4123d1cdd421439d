"""A loss that is not finite ends training, and everything before it stands."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from recbert.training import last_checkpoint
from tests.training_runs import losses, tiny_trainer


class _Break(TrainerCallback):
    """Spoil a weight after a number of steps."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == self.step:
            weight: Tensor = kwargs["model"].get_input_embeddings().weight
            weight.data.fill_(self.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_training_stops_with_step_rate_and_batch(value: float, accumulated: int, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": accumulated}
    sizes = {"per_device_train_batch_size": 4 // accumulated, "num_train_epochs": 2}
    trainer = tiny_trainer(tmp_path, callbacks=(_Break(5, value),), **saving, **sizes)
    with pytest.raises(ValueError, match=r"the loss is nan at step 6 with learning rate 0.01;"):
        trainer.train()
    (path,) = tmp_path.glob("*.safetensors")
    assert path.name == "not-finite-step-6-process-0.safetensors"
    batch = load_file(path)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["input_ids"].dtype == torch.int64 and (batch["labels"] != -100).any()
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"step": "6", "learning_rate": "0.01"}

    checkpoint = last_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.endswith("checkpoint-4")
    resumed = tiny_trainer(tmp_path, **saving, **sizes)
    resumed.train(resume_from_checkpoint=checkpoint)
    whole = tiny_trainer(tmp_path / "whole", **saving, **sizes)
    whole.train()
    assert losses(resumed) == losses(whole)
