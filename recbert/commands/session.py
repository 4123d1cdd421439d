"""What training commands share: the prepared data, the objective, and a training run that can be resumed."""

import logging
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from recbert.commands.losses import build_loss
from recbert.objectives import MaskedItem, NextItem
from recbert.recipe import Recipe, replace_sections
from recbert.sequences import read_prepared, stream_prepared
from recbert.tokenizer import ItemTokenizer
from recbert.training import (
    Lineage,
    MirroredTables,
    Provenance,
    RecTrainer,
    check_shared_folder,
    is_complete,
    last_checkpoint,
    list_checkpoints,
)

logger = logging.getLogger(__name__)


TRAINING_PARTS = ("train", "valid")
"""What may be seen while anything is still chosen; the test part is for `recbert evaluate`."""


def read_data(
    recipe: Recipe, parts: Collection[str] | None = None
) -> tuple[Any, ItemTokenizer, dict[str, Any]]:
    """Read the prepared data of a recipe.

    Args:
        recipe: the recipe.
        parts: those to read, None for all; the others are not even opened.

    Returns:
        data: parts by name.
        tokenizer: their vocabulary.
        manifest: protocol and fingerprint.

    Raises:
        FileNotFoundError: it was not prepared.
    """
    if not Path(recipe.data.prepared, "manifest.json").is_file():
        raise FileNotFoundError(
            f"{recipe.data.prepared} is not prepared data: run `recbert prepare` with this recipe"
        )
    return read_prepared(recipe.data.prepared, parts)


def read_training_data(recipe: Recipe) -> tuple[Any, ItemTokenizer, dict[str, Any]]:
    """Read what training may see, the training part row by row where the recipe streams; see `read_data`."""
    if recipe.data.streaming:
        return stream_prepared(recipe.data.prepared, TRAINING_PARTS)
    return read_data(recipe, TRAINING_PARTS)


def objective_of(recipe: Recipe, tokenizer: ItemTokenizer, train: Any) -> NextItem | MaskedItem:
    """Build the objective of a recipe.

    Args:
        recipe: the recipe.
        tokenizer: the vocabulary of its data.
        train: their training part, whose items a popularity sampler counts.

    Raises:
        ValueError: two keys of the recipe do not go together.
    """
    length = recipe.sequences.max_length
    loss = build_loss(recipe, tokenizer, train)
    if recipe.objective.name == "next-item":
        return NextItem(
            tokenizer,
            length,
            start_token=recipe.objective.start_token,
            horizon=recipe.objective.horizon,
            anchoring=recipe.objective.anchoring,
            augmentation=recipe.objective.augmentation,
            time_encoding=recipe.objective.time,
            loss=loss,
        )
    for key, default in (("start_token", False), ("horizon", 1)):
        if getattr(recipe.objective, key) != default:
            raise ValueError(f"objective.{key} goes with objective.name 'next-item' only: leave it out")
    return MaskedItem(
        tokenizer,
        length,
        mask_rate=recipe.objective.mask_rate,
        last_item_share=recipe.objective.last_item_share,
        anchoring=recipe.objective.anchoring,
        time_encoding=recipe.objective.time,
        augmentation=recipe.objective.augmentation,
        loss=loss,
    )


def train(
    recipe: Recipe,
    model: PreTrainedModel,
    objective: NextItem | MaskedItem,
    data: Any,
    manifest: dict[str, Any],
    lineage: Lineage | None = None,
) -> None:
    """Train, keep the best epoch and save it in the `model` folder of `training.output_dir`.

    With `--training.resume_from_checkpoint true` an interrupted run goes on from its last epoch. Without it,
    the checkpoints of an earlier run in the same folder are removed: two runs cannot be told apart there.

    Args:
        recipe: the recipe.
        model: the model to train.
        objective: its objective.
        data: parts by name.
        manifest: the prepared data's manifest.
        lineage: what the model has from its base.

    Raises:
        FileNotFoundError: there is nothing to resume.
        ValueError: the data was prepared for another `sequences.max_length`, or machines share no folder.
    """
    text = text_with_data(recipe, manifest)
    folder = Path(recipe.training.output_dir or "")
    check_shared_folder(folder)
    resume = _checkpoint_to_resume(recipe.training.resume_from_checkpoint, folder)
    provenance = Provenance(manifest["protocol"], manifest["fingerprint"], text, lineage or Lineage())
    trainer = RecTrainer(
        model,
        recipe.training,
        objective=objective,
        data=data,
        provenance=provenance,
        filter_seen=recipe.evaluation.filter_seen,
        callbacks=[MirroredTables(model)] if recipe.model.tie_items == "mirrored" else [],
    )
    if resume is None and recipe.training.should_save:
        _remove(list_checkpoints(folder), "of an earlier run")
    try:
        trainer.train(resume_from_checkpoint=resume)
        if trainer.eval_dataset is not None:
            trainer.evaluate()  # of the best epoch, for the model card
        trainer.save_model(str(folder / "model"))
    except BaseException:
        sys.stderr.write("\n")  # the line of the progress bar is still open
        raise
    finally:
        if recipe.training.should_save:
            _remove(
                [path for path in list_checkpoints(folder) if not is_complete(path)], "that are incomplete"
            )
    logger.info("saved %s", folder / "model")
    leave_group()


def leave_group() -> None:
    """Leave the process group of a launcher together: a process that ends early can abort the others."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def text_with_data(recipe: Recipe, manifest: dict[str, Any]) -> str:
    """Give the recipe with the data, split and sequences that the prepared data was really made with.

    Args:
        recipe: the recipe.
        manifest: the prepared data's manifest.

    Raises:
        ValueError: the data was prepared for another `sequences.max_length`.
    """
    made: dict[str, dict[str, Any]] = manifest.get("recipe", {})
    if not made:
        return recipe.text  # prepared by other means than the command
    length = made["sequences"]["max_length"]
    if length != recipe.sequences.max_length:
        raise ValueError(
            f"sequences.max_length is {recipe.sequences.max_length} and {recipe.data.prepared} was prepared "
            f"with {length}: use the same, or run `recbert prepare` again"
        )
    here = {"prepared": recipe.data.prepared}
    return replace_sections(recipe.text, {**made, "data": {**made["data"], **here}})


def _checkpoint_to_resume(wanted: str | bool | None, folder: Path) -> str | None:
    """Give the checkpoint folder that `training.resume_from_checkpoint` means."""
    choice = str(wanted).lower()
    if choice in ("none", "false"):
        return None
    if choice != "true":
        if not Path(str(wanted)).is_dir():
            raise FileNotFoundError(
                f"training.resume_from_checkpoint is {wanted!r}: no such folder; `true` takes the last"
            )
        return str(wanted)
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        raise FileNotFoundError(f"{folder} has no checkpoint to resume: drop training.resume_from_checkpoint")
    logger.info("going on from %s", checkpoint)
    return checkpoint


def _remove(checkpoints: list[Path], why: str) -> None:
    """Remove checkpoints and say so."""
    for path in checkpoints:
        shutil.rmtree(path, ignore_errors=True)
    if checkpoints:
        logger.info("removed %d checkpoints %s", len(checkpoints), why)
