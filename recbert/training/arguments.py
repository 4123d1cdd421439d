"""Training arguments with the defaults of sequential recommendation."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments


@dataclass
class RecTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with other defaults and three more fields.

    Every name, type and meaning is transformers'. Validation NDCG@10 over the full catalogue, measured after
    every epoch, chooses the best epoch and stops training; batches hold sequences of similar length;
    TensorBoard records.

    Attributes:
        early_stopping_patience: evaluations without a better `metric_for_best_model` after which training
            stops; 0 trains to the end.
        max_tokens_per_batch: padded events in the batch of one process at most (rows times the longest row),
            beside `per_device_train_batch_size` rows; 0 for no limit. Long histories then come in smaller
            batches, short ones in larger.
        packing: put the rows of a next-item batch one after another, unpadded. Needs variable-length flash
            attention and bf16 on a GPU; elsewhere batches are grouped by length as always.
    """

    per_device_train_batch_size: int = 128
    per_device_eval_batch_size: int = 512
    learning_rate: float = 1e-3
    lr_scheduler_type: str = "constant"
    adam_beta2: float = 0.98
    num_train_epochs: float = 50
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 2
    logging_strategy: str = "epoch"
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "ndcg@10"
    greater_is_better: bool | None = True
    train_sampling_strategy: str = "group_by_length"
    remove_unused_columns: bool = False
    # The item bias is used behind the model's forward only: DDP's search would take it for unused.
    ddp_find_unused_parameters: bool | None = False
    report_to: None | str | list[str] = "tensorboard"
    early_stopping_patience: int = field(default=5)
    max_tokens_per_batch: int = field(default=0)
    packing: bool = field(default=False)

    @property
    def device(self) -> torch.device:
        """Give the device of this process; a CPU without the number of the process."""
        device: torch.device = super().device
        # accelerate numbers it, and torch 2.6 does not load a checkpoint to "cpu:0".
        return torch.device("cpu") if device.type == "cpu" else device

    def __post_init__(self) -> None:
        """Refuse what recbert does in another way."""
        if self.push_to_hub:
            raise ValueError("push_to_hub is true: train first, then run `recbert push FOLDER OWNER/NAME`")
        if self.early_stopping_patience < 0:
            raise ValueError(
                f"early_stopping_patience is {self.early_stopping_patience}: it must be 0 or more"
            )
        if self.max_tokens_per_batch < 0:
            raise ValueError(f"max_tokens_per_batch is {self.max_tokens_per_batch}: it must be 0 or more")
        if self.train_sampling_strategy not in ("group_by_length", "random", "sequential"):
            raise ValueError(
                f"train_sampling_strategy is {self.train_sampling_strategy!r}: it must be 'group_by_length', "
                "'random' or 'sequential'"
            )
        if self.label_smoothing_factor:
            raise ValueError(
                "label_smoothing_factor is set, but the objectives do not smooth labels: leave it 0"
            )
        super().__post_init__()  # type: ignore[no-untyped-call]  # transformers annotates no __post_init__
