"""A language model with items in place of its words, as the base that `recbert finetune` starts from."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from recbert.baselines import cooccurrence_vectors
from recbert.checkpoint import INFO_FILE, CheckpointInfo, write_folder
from recbert.checkpoint.saving import write_checkpoint
from recbert.commands.session import objective_of
from recbert.events.items import read_titles
from recbert.inputs import TrainRows
from recbert.models import build_from_backbone, start_items
from recbert.recipe import ModelConfig, Recipe
from recbert.tokenizer import ItemTokenizer

logger = logging.getLogger(__name__)

_KEYS = ("backbone", "gguf_file", "dropout", "item_vectors")
"""Of the section `model`: what goes with a backbone."""


def write_base(recipe: Recipe, tokenizer: ItemTokenizer, data: Any, manifest: dict[str, Any]) -> str:
    """Write the model of items that a recipe's backbone becomes, untrained, as `base` in the output folder.

    Args:
        recipe: the recipe.
        tokenizer: the vocabulary of its data.
        data: parts by name.
        manifest: the prepared data's manifest.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: there is no such backbone.
        ValueError: keys of the recipe do not go together.
    """
    _check_keys(recipe)
    folder = Path(recipe.training.output_dir or "", "base")
    with recipe.training.main_process_first(local=False, desc="writing the base"):
        if recipe.training.should_save:
            objective = objective_of(recipe, tokenizer, data["train"])
            counts = TrainRows(data["train"], least=1, seed=0).count_items(tokenizer.num_items)
            info = CheckpointInfo(
                objective.input_format,
                counts,
                data_fingerprint=manifest["fingerprint"],
                untrained_items=tokenizer.num_items,
            )
            model = _build(recipe, tokenizer, data["train"])
            with write_folder(folder, marker=INFO_FILE) as draft:
                write_checkpoint(draft, model, tokenizer, info)
            logger.info("%s: %s with items in place of its words", folder, recipe.model.backbone)
    return str(folder)


def _check_keys(recipe: Recipe) -> None:
    """Refuse what a backbone does not take."""
    model = recipe.model
    given = [
        field.name
        for field in dataclasses.fields(ModelConfig)
        if field.name not in _KEYS and getattr(model, field.name) != field.default
    ]
    if given:
        raise ValueError(
            f"model.backbone is {model.backbone} and model.{given[0]} is set: a backbone brings that itself, "
            "drop one of them"
        )
    if recipe.data.streaming:
        raise ValueError(
            "model.backbone is set and data.streaming is true: its base counts the training events"
        )
    if str(model.item_vectors).startswith("title") and recipe.data.items is None:
        raise ValueError(
            f"model.item_vectors is {model.item_vectors!r} and data.items is null: name the item table"
        )


def _build(recipe: Recipe, tokenizer: ItemTokenizer, train: Any) -> PreTrainedModel:
    """Build the untrained model."""
    start, titles = recipe.model.item_vectors, None
    if start is not None and start != "cooccurrence":
        known = read_titles(recipe.data.items or "")
        titles = [known.get(item, "") for item in tokenizer.item_ids]
    model = build_from_backbone(
        recipe.model.backbone or "",
        tokenizer,
        objective=recipe.objective.name,
        titles=titles,
        start=None if start == "cooccurrence" else start,
        max_length=recipe.sequences.max_length,
        time_encoding=recipe.objective.time,
        dropout=recipe.model.dropout,
        gguf_file=recipe.model.gguf_file,
    )
    if start == "cooccurrence":
        start_items(model, *cooccurrence_vectors(train, tokenizer.num_items, model.config.hidden_size))
    return model
