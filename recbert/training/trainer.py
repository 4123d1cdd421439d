"""RecTrainer: an objective and full-catalogue evaluation wired into transformers.Trainer."""

import copy
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, IntervalStrategy

from recbert.adapters import base_name
from recbert.backends import TorchScorer
from recbert.checkpoint import INFO_FILE, CheckpointInfo, base_hash, write_folder
from recbert.checkpoint.saving import write_checkpoint
from recbert.evaluation import (
    Ranking,
    RankingMetrics,
    parse_metric,
    rank_over_shards,
    rank_targets,
)
from recbert.inputs import TargetRows, TokenIds, TrainRows
from recbert.models import freeze_spare_bias, hidden_only, item_table
from recbert.objectives import MaskedItem, NextItem, Tempered
from recbert.sharding import item_tables
from recbert.training.arguments import RecTrainingArguments
from recbert.training.figures import (
    MAIN_METRICS,
    list_length,
    training_metrics,
    validation_figures,
    validation_protocol,
)
from recbert.training.finite import check_finite
from recbert.training.fitness import check_model
from recbert.training.fsdp import cut_model, gather_weights, gathered
from recbert.training.loading import build_loader, open_training
from recbert.training.packing import prepare_packing
from recbert.training.provenance import Provenance
from recbert.training.sharded import SplitTables, write_together
from recbert.training.sphere import ItemSphere
from recbert.training.stream import TrainStream

logger = logging.getLogger(__name__)


class RecTrainer(Trainer):
    """`transformers.Trainer` for an item sequence model.

    The loss is the objective's, over hidden states at labelled positions only; evaluation ranks the full
    catalogue for every target of the validation part; `save_model` writes a checkpoint that plain
    transformers loads.

    Args:
        model: from `build_model`, an Auto class or `add_lora`.
        args: training arguments.
        objective: `NextItem` or `MaskedItem`.
        data: parts by name: `train`, and `valid` for early stopping and the choice of the best epoch.
        provenance: what `save_model` writes down about the data and the recipe.
        filter_seen: whether items of the history are left out, in evaluation and by the saved checkpoint.
        callbacks: further transformers callbacks.

    Raises:
        ValueError: the model is too small for the vocabulary or the length or looks the wrong way for the
            objective, or no training row has a label.
    """

    objective: NextItem | MaskedItem
    ranking: Ranking | None
    _validated: Ranking | None
    _validation: dict[int, dict[str, float]]
    _packed: bool
    _caches: bool
    _split: SplitTables | None

    def __init__(
        self,
        model: PreTrainedModel,
        args: RecTrainingArguments,
        *,
        objective: NextItem | MaskedItem,
        data: Mapping[str, Any],
        provenance: Provenance | None = None,
        filter_seen: bool = True,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        check_model(model, objective)
        freeze_spare_bias(model)
        rows = open_training(data["train"], objective, args)
        targets = TargetRows(data["valid"]) if "valid" in data else None
        if not targets:
            logger.warning("there is no validation part: training runs to the end and keeps the last epoch")
            args = copy.copy(args)
            args.eval_strategy, args.load_best_model_at_end = IntervalStrategy.NO, False
        elif args.early_stopping_patience and args.eval_strategy != IntervalStrategy.NO:
            callbacks = [*callbacks, EarlyStoppingCallback(args.early_stopping_patience)]
        if targets and args.eval_strategy != IntervalStrategy.NO and args.metric_for_best_model:
            parse_metric(args.metric_for_best_model.removeprefix("eval_"))  # now, not after an epoch
        self.objective = objective
        self.provenance = provenance or Provenance()
        self.filter_seen = filter_seen
        is_causal = objective.input_format.objective == "next-item"
        self._caches = is_causal and bool(getattr(model.config, "use_cache", False))
        self._packed = prepare_packing(model, objective, args)
        self._split = SplitTables(model, args) if item_tables(model) else None
        callbacks = callbacks if self._split is None else [*callbacks, self._split]
        if isinstance(objective.loss_function, Tempered):
            callbacks = [*callbacks, ItemSphere(model, objective.loss_function)]
        self.ranking = self._validated = None
        self._validation = {}
        super().__init__(
            model=model,
            args=args,
            data_collator=cast(Any, objective.collate),
            train_dataset=rows,
            eval_dataset=targets or None,
            compute_loss_func=self._loss,
            callbacks=list(callbacks),
        )
        if self.is_fsdp_enabled:
            if isinstance(objective.loss_function, Tempered):
                raise ValueError("temperature is set, which needs whole item tables: launch without FSDP")
            cut_model(model, self.accelerator.state.fsdp_plugin)

    @property
    def popularity(self) -> TokenIds:
        """Give the training events of each item, (V_items,); of a stream those read so far."""
        rows = cast("TrainRows | TrainStream", self.train_dataset)
        return rows.count_items(self.objective.tokenizer.num_items)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Make the gradients of a batch; stop where its loss is not finite, see `check_finite`."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        rate = float(cast(torch.optim.Optimizer, self.optimizer).param_groups[0]["lr"])
        folder, process = self.args.output_dir or ".", self.args.process_index
        check_finite(loss, inputs, step=self.state.global_step, rate=rate, folder=folder, process=process)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Give the loss of a batch; the model stops in front of its item matrix."""
        if self._caches:
            inputs = {**inputs, "use_cache": False}  # training reads keys and values once
        with hidden_only(self.accelerator.unwrap_model(model)):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Give the objective's mean loss over all labels of the optimiser step."""
        weight, bias = item_table(self.accelerator.unwrap_model(self.model))
        total: Tensor = self.objective.loss(outputs.logits, weight, bias, labels)
        count = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        # One process on several GPUs gets a copy of the count for each, and the Trainer multiplies by them.
        count = torch.as_tensor(count, device=total.device).max().clamp(min=1)
        mean: Tensor = total / (count * max(1, self.args.n_gpu))
        return mean

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Clip the gradients, those of split tables included."""
        if self._split is not None:
            return self._split.clip(model, self.args.max_grad_norm)
        return cast(Tensor, super()._clip_grad_norm(model))  # type: ignore[no-untyped-call]  # as transformers

    def get_train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        """Give this process's batches, the same for any number of processes; see `BatchPlan`."""
        rows = cast("TrainRows | TrainStream", self.train_dataset)
        return build_loader(rows, self.objective, cast(RecTrainingArguments, self.args), self._packed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader[Any]:
        """Give the targets of a part; `rank_targets` batches them and shares them out without padding."""
        part: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if part is None:
            raise ValueError("there is no validation part: give one in data, or call evaluate(part)")
        targets: Any = part if isinstance(part, TargetRows) else TargetRows(part)
        return torch.utils.data.DataLoader(targets, batch_size=None)

    def get_test_dataloader(self, test_dataset: Any) -> torch.utils.data.DataLoader[Any]:
        """Give the targets of a part that `predict` ranks."""
        return self.get_eval_dataloader(test_dataset)

    def evaluation_loop(
        self,
        dataloader: torch.utils.data.DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Rank the full catalogue for every target; exact under several processes.

        All metrics of `RankingMetrics` come back; during training only the main ones and the one that chooses
        the best epoch.
        """
        model = self.accelerator.unwrap_model(self.model)
        training = model.training
        model.eval()
        popularity = self.popularity
        scorer = TorchScorer(model, self.objective.input_format, popularity)
        targets = cast(TargetRows, dataloader.dataset)
        chosen = (self.args.metric_for_best_model or "").removeprefix("eval_") or MAIN_METRICS[0]
        size, k = self.args.per_device_eval_batch_size, list_length(chosen)
        if self._split is None:
            with gathered(model):
                self.ranking = rank_targets(
                    scorer, targets, filter_seen=self.filter_seen, k=k, batch_size=size
                )
        else:
            table = self._split.items(self.objective.tokenizer.num_items)
            self.ranking = rank_over_shards(
                scorer, table, targets, popularity, filter_seen=self.filter_seen, k=k, batch_size=size
            )
        model.train(training)
        if self.is_in_train:
            metrics = training_metrics(self.ranking, popularity, chosen)
        else:
            metrics = RankingMetrics().compute(self.ranking, popularity)
        if targets is self.eval_dataset:
            self._validated = self.ranking
            self._validation[self.state.global_step] = metrics
        return EvalLoopOutput(
            predictions=self.ranking.ranks,
            label_ids=self.ranking.targets,
            metrics={f"{metric_key_prefix}_{name}": value for name, value in metrics.items()},
            num_samples=len(self.ranking.ranks),
        )

    def save_model(self, output_dir: str | Path | None = None, _internal_call: bool = False) -> None:
        """Write a checkpoint folder that plain transformers (or PEFT, for an adapter) loads.

        Args:
            output_dir: the folder, written whole or not at all; by default `model` in `args.output_dir`.
            _internal_call: set by the Trainer for its own resumable checkpoints, which are left as they are.
        """
        if _internal_call:
            folder = str(output_dir or self.args.output_dir)
            super().save_model(folder, _internal_call)
            if self._split is not None:
                self._split.write(folder, with_state=True)
            return
        target = output_dir or Path(self.args.output_dir or ".", "model")
        weights = gather_weights(self.accelerator.unwrap_model(self.model), self.accelerator)
        if self._split is not None:
            with write_together(target, marker=INFO_FILE) as draft:
                if self.args.should_save:
                    self._write_checkpoint(draft, weights)
                self._split.write(draft)
        elif self.args.should_save:
            with write_folder(target, marker=INFO_FILE) as draft:
                self._write_checkpoint(draft, weights)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._split is not None:
            self._split.read(resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self._split is not None:
            self._split.read(cast(str, self.state.best_model_checkpoint))
        else:
            super()._load_best_model()

    def _write_checkpoint(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """Write weights (None: the model's), vocabulary, `recbert.json`, recipe and card into a folder."""
        model = self.accelerator.unwrap_model(self.model)
        base = base_name(model)
        best = self.state.best_global_step if self.args.load_best_model_at_end else None
        timed = self.objective.input_format.time_encoding is not None
        info = CheckpointInfo(
            input=self.objective.input_format,
            popularity=self.popularity,
            filter_seen=self.filter_seen,
            protocol=validation_protocol(self.provenance.protocol, self._validated, timed),
            base_hash=base_hash(base),
            metrics=validation_figures(self._validation, best, self._validated),
            data_fingerprint=self.provenance.data_fingerprint,
            **dataclasses.asdict(self.provenance.lineage),
        )
        write_checkpoint(
            folder,
            model,
            self.objective.tokenizer,
            info,
            recipe=self.provenance.recipe,
            base=base,
            weights=weights,
        )
