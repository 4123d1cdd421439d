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

from recbert.adapters import base_folder, base_name
from recbert.backends import TorchScorer
from recbert.checkpoint import INFO_FILE, CheckpointInfo, hash_base, write_folder, write_info, write_text
from recbert.checkpoint.card import build_model_card
from recbert.evaluation import Ranking, RankingMetrics, describe_protocol, parse_metric, rank_targets
from recbert.inputs import TargetRows, TokenIds, TrainRows
from recbert.models import check_fits, hidden_only, item_table
from recbert.objectives import MaskedItem, NextItem
from recbert.training.arguments import RecTrainingArguments
from recbert.training.direction import check_direction
from recbert.training.fsdp import cut_model, gather_weights, gathered
from recbert.training.loading import build_loader, open_training
from recbert.training.packing import prepare_packing
from recbert.training.stream import TrainStream

logger = logging.getLogger(__name__)

MAIN_METRICS = ("hit@10", "ndcg@10", "mrr@10", "coverage@10")
"""What is logged at every evaluation during training, and what a checkpoint records."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a checkpoint comes from; written into `recbert.json`, `recipe.yaml` and the model card.

    Attributes:
        protocol: how the data was split and the metrics are obtained, in words.
        data_fingerprint: hash of the prepared data.
        recipe: the resolved recipe as YAML.
    """

    protocol: str = ""
    data_fingerprint: str = ""
    recipe: str = ""


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

    def __init__(
        self,
        model: PreTrainedModel,
        args: RecTrainingArguments,
        *,
        objective: NextItem | MaskedItem,
        data: Mapping[str, Any],
        provenance: Provenance = Provenance(),
        filter_seen: bool = True,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        check_fits(model, objective.tokenizer, objective.input_format.max_length)
        check_direction(model, objective)
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
        self.provenance = provenance
        self.filter_seen = filter_seen
        is_causal = objective.input_format.objective == "next-item"
        self._caches = is_causal and bool(getattr(model.config, "use_cache", False))
        self._packed = prepare_packing(model, objective, args)
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
            cut_model(model, self.accelerator.state.fsdp_plugin)

    @property
    def popularity(self) -> TokenIds:
        """Give the training events of each item, (V_items,); of a stream those read so far."""
        rows = cast("TrainRows | TrainStream", self.train_dataset)
        return rows.count_items(self.objective.tokenizer.num_items)

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
        batch_size = self.args.per_device_eval_batch_size
        with gathered(model):
            self.ranking = rank_targets(
                scorer, targets, filter_seen=self.filter_seen, k=self._list_length(), batch_size=batch_size
            )
        model.train(training)
        metrics = self._metrics(self.ranking, popularity)
        if targets is self.eval_dataset:
            self._validated = self.ranking
            self._validation[self.state.global_step] = metrics
        return EvalLoopOutput(
            predictions=self.ranking.ranks,
            label_ids=self.ranking.targets,
            metrics={f"{metric_key_prefix}_{name}": value for name, value in metrics.items()},
            num_samples=len(self.ranking.ranks),
        )

    def _list_length(self) -> int:
        """Give the longest list that a metric may look at."""
        wanted = (self.args.metric_for_best_model or MAIN_METRICS[0]).removeprefix("eval_").rpartition("@")[2]
        return max(*RankingMetrics().ks, int(wanted) if wanted.isdecimal() else 1)

    def _metrics(self, ranking: Ranking, popularity: TokenIds) -> dict[str, float]:
        """Give the metrics of a ranking by name."""
        metrics = RankingMetrics()
        if not self.is_in_train:
            return metrics.compute(ranking, popularity)
        wanted = (self.args.metric_for_best_model or MAIN_METRICS[0]).removeprefix("eval_")
        names = dict.fromkeys((*MAIN_METRICS, wanted))
        return {name: metrics.value(ranking, name, popularity) for name in names}

    def save_model(self, output_dir: str | Path | None = None, _internal_call: bool = False) -> None:
        """Write a checkpoint folder that plain transformers (or PEFT, for an adapter) loads.

        Args:
            output_dir: the folder, written whole or not at all; by default `model` in `args.output_dir`.
            _internal_call: set by the Trainer for its own resumable checkpoints, which are left as they are.
        """
        if _internal_call:
            super().save_model(None if output_dir is None else str(output_dir), _internal_call)
            return
        weights = gather_weights(self.accelerator.unwrap_model(self.model), self.accelerator)
        if self.args.should_save:
            target = output_dir or Path(self.args.output_dir or ".", "model")
            with write_folder(target, marker=INFO_FILE) as draft:
                self._write_checkpoint(draft, weights)
        self.accelerator.wait_for_everyone()

    def _write_checkpoint(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """Write weights (None: the model's), vocabulary, `recbert.json`, recipe and card into a folder."""
        model = self.accelerator.unwrap_model(self.model)
        model.save_pretrained(folder, state_dict=weights)
        self.objective.tokenizer.save_pretrained(folder)
        base = base_folder(model)
        info = CheckpointInfo(
            input=self.objective.input_format,
            popularity=self.popularity.tolist(),
            filter_seen=self.filter_seen,
            protocol=self._protocol(),
            base_hash=None if base is None else hash_base(base),
            metrics=self._figures(),
            data_fingerprint=self.provenance.data_fingerprint,
        )
        write_info(folder, info)
        if self.provenance.recipe:
            write_text(folder / "recipe.yaml", self.provenance.recipe)
        card = build_model_card(
            info, model.config.to_dict(), self.provenance.recipe or None, base_name(model)
        )
        write_text(folder / "README.md", card)

    def _protocol(self) -> str:
        """Say how the figures were obtained: on the validation part, which chose the epoch."""
        if not self._validated:
            return self.provenance.protocol
        split = f"{self.provenance.protocol or 'split not recorded'}; validation part"
        return describe_protocol(split, self._validated, RankingMetrics())

    def _figures(self) -> dict[str, float]:
        """Give the main validation figures of the model as it is, with intervals if it was ranked last."""
        if not self._validation:
            return {}
        last = max(self._validation)
        best = self.state.best_global_step if self.args.load_best_model_at_end else None
        chosen = self._validation.get(best or last, self._validation[last])
        figures = {name: float(chosen[name]) for name in MAIN_METRICS}
        metrics = RankingMetrics()
        if self._validated and metrics.value(self._validated, "ndcg@10") == figures["ndcg@10"]:
            for name in ("hit@10", "ndcg@10"):
                figures[f"{name}_low"], figures[f"{name}_high"] = metrics.bootstrap(self._validated, name)
        return figures
