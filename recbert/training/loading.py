"""The training part of the data, and the loader that brings its batches to a process."""

import logging
from functools import partial
from typing import Any, cast

from torch import Tensor
from transformers import TrainingArguments

from recbert.inputs import TrainBatch, TrainRows, pack
from recbert.objectives import MaskedItem, NextItem
from recbert.training.arguments import RecTrainingArguments
from recbert.training.batches import BatchPlan, BatchShape, Order, TrainLoader
from recbert.training.stream import TrainStream

logger = logging.getLogger(__name__)


def open_training(
    part: Any, objective: NextItem | MaskedItem, args: RecTrainingArguments
) -> TrainRows | TrainStream:
    """Open the training part and say what cannot be learnt from.

    Args:
        part: rows, or a stream of rows (`datasets.IterableDataset`).
        objective: what is predicted.
        args: training arguments.

    Raises:
        ValueError: nothing can be learnt from any row, or the arguments need a length that a stream has not.
    """
    if not hasattr(part, "__len__"):
        return _open_stream(part, objective, args)
    rows = TrainRows(
        part, least=objective.least_events, seed=_data_seed(args), with_times=_needs_times(objective)
    )
    if len(rows) == 0:
        raise ValueError(
            f"no training sequence has {objective.least_events} or more known events, which the objective "
            "needs: loosen the cleaning or the split, or give more events"
        )
    if _needs_times(objective):
        rows.check_times()
    if rows.dropped or rows.unknown:
        logger.warning(
            "%d training sequences are too short to learn from; %d events of items outside the vocabulary "
            "are skipped",
            rows.dropped,
            rows.unknown,
        )
    return rows


def _open_stream(part: Any, objective: NextItem | MaskedItem, args: RecTrainingArguments) -> TrainStream:
    if args.max_steps <= 0:
        raise ValueError(
            f"max_steps is {args.max_steps}, but a stream has no length: say how many steps to train"
        )
    if "epoch" in (args.eval_strategy, args.save_strategy):
        raise ValueError(
            "eval_strategy or save_strategy is 'epoch', but a stream has no epochs: use 'steps' with "
            "eval_steps and save_steps"
        )
    if args.dataloader_num_workers:
        raise ValueError(
            f"dataloader_num_workers is {args.dataloader_num_workers}: a stream is read ahead by a thread of "
            "its own, leave it 0"
        )
    return TrainStream(
        part,
        _batch_shape(args),
        least=objective.least_events,
        seed=_data_seed(args),
        order=cast(Order, args.train_sampling_strategy),
        process=args.process_index,
        with_times=_needs_times(objective),
    )


def _needs_times(objective: NextItem | MaskedItem) -> bool:
    return objective.input_format.time_encoding is not None


def build_loader(
    rows: TrainRows | TrainStream, objective: NextItem | MaskedItem, args: RecTrainingArguments, packed: bool
) -> TrainLoader:
    """Build the loader of this process's batches.

    It is complete by itself: accelerate, which would deal batches out anew, does not prepare it.

    Args:
        rows: what `open_training` gave.
        objective: lays batches out.
        args: training arguments.
        packed: whether batches are packed.
    """
    collate: Any = partial(_collate_packed, objective) if packed else objective.collate
    if isinstance(rows, TrainStream):
        return TrainLoader(rows, batch_size=None, collate_fn=collate, pin_memory=_pins(args))
    plan: Any = BatchPlan(
        rows.lengths,
        _batch_shape(args),
        _data_seed(args),
        order=cast(Order, args.train_sampling_strategy),
        process=args.process_index,
        drop_last=args.dataloader_drop_last,
    )
    workers = args.dataloader_num_workers
    return TrainLoader(
        rows,
        batch_sampler=plan,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=args.dataloader_prefetch_factor if workers else None,
        persistent_workers=bool(workers) and args.dataloader_persistent_workers,
        pin_memory=_pins(args),
    )


def _collate_packed(objective: NextItem | MaskedItem, batch: TrainBatch) -> dict[str, Tensor]:
    return pack(objective.collate(batch))


def _pins(args: TrainingArguments) -> bool:
    """Pinned memory speeds up copies to a GPU and only costs without one."""
    return args.dataloader_pin_memory and args.device.type == "cuda"


def _batch_shape(args: RecTrainingArguments) -> BatchShape:
    return BatchShape(
        rows=args.train_batch_size,
        tokens=args.max_tokens_per_batch,
        processes=args.world_size,
        accumulated=args.gradient_accumulation_steps,
    )


def _data_seed(args: TrainingArguments) -> int:
    """Give the seed of order and masks."""
    return args.seed if args.data_seed is None else args.data_seed
