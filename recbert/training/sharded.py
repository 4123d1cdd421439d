"""What the trainer does otherwise for a model whose item table is split over processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from recbert.checkpoint import write_folder
from recbert.evaluation import ItemSlice, slice_items
from recbert.models import item_table
from recbert.sharding import (
    RowwiseAdam,
    clip_gradients,
    item_tables,
    read_rows,
    read_weights,
    write_rows,
    write_tables,
)
from recbert.training.arguments import RecTrainingArguments

_STATE_FILE = "item_optimizer.safetensors"


class SplitTables(TrainerCallback):
    """The split tables of a model under training, with their optimiser.

    Data parallelism, the Trainer's optimiser and its checkpoints know nothing of the tables, which are no
    parameters; each method stands beside what the Trainer does for the rest.

    Args:
        model: a model with split tables.
        args: training arguments; beta2 and eps of the Trainer's AdamW are used for the rows too, its weight
            decay is not.

    Raises:
        ValueError: fp16 is asked for, whose scaled gradients the rows would take as they are.
    """

    def __init__(self, model: PreTrainedModel, args: RecTrainingArguments) -> None:
        if args.fp16:
            raise ValueError("fp16 is true, but split item tables have no loss scaling: set bf16 instead")
        self._model = model
        self._tables = item_tables(model)
        self._rows = RowwiseAdam(self._tables, beta2=args.adam_beta2, eps=args.adam_epsilon)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the rows after the other weights, at their learning rate."""
        rate = float(kwargs["optimizer"].param_groups[0]["lr"])
        self._rows.step(rate, state.global_step + 1)

    def clip(self, model: nn.Module, max_norm: float) -> Tensor:
        """Clip all gradients, those of the rows included, and give their norm."""
        return clip_gradients(model.parameters(), self._tables, max_norm)

    def write(self, folder: str | Path, *, with_state: bool = False) -> None:
        """Add the tables, and maybe their optimiser's state, to a checkpoint of everything else."""
        write_tables(self._model, folder)
        if with_state:
            write_rows(Path(folder) / _STATE_FILE, self._rows.state)

    def read(self, folder: str | Path) -> None:
        """Take all weights and the rows' optimiser state from a checkpoint, to resume or to keep the best."""
        read_weights(self._model, folder)
        if (Path(folder) / _STATE_FILE).is_file():
            read_rows(Path(folder) / _STATE_FILE, self._rows.state)

    def items(self, num_items: int) -> ItemSlice:
        """Give the items that this process scores, of all `num_items`."""
        weight, bias = cast("tuple[DTensor, DTensor | None]", item_table(self._model))
        return slice_items(weight, bias, num_items)


@contextmanager
def write_together(target: str | Path, *, marker: str) -> Iterator[Path]:
    """Give all processes the same temporary folder, see `recbert.checkpoint.write_folder`.

    Args:
        target: the folder to write, on a disk that all processes see.
        marker: file by which a folder of the same kind is known.
    """
    place: list[Path | None] = [None]
    if distributed.get_rank() > 0:
        distributed.broadcast_object_list(place)
        if place[0] is None:
            raise FileExistsError(f"{target} could not be prepared: see the message of the first process")
        yield place[0]
        distributed.barrier()
        return
    try:
        with write_folder(target, marker=marker) as draft:
            place = [draft]
            distributed.broadcast_object_list(place)
            yield draft
            distributed.barrier()
    finally:
        if place[0] is None:
            distributed.broadcast_object_list(place)
