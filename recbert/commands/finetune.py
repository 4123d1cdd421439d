"""`recbert finetune`: adapt a checkpoint to other data, with LoRA where the recipe has an adapter section."""

import logging
from pathlib import Path
from typing import cast

from transformers import PreTrainedModel, set_seed

from recbert.adapters import add_lora, parameter_counts
from recbert.checkpoint import find_file, read_info
from recbert.commands.losses import check_loss
from recbert.commands.session import objective_of, read_training_data, train
from recbert.hub import fetch
from recbert.models import untie_items
from recbert.recipe import AdapterConfig, Recipe, load_recipe, recipe_parser
from recbert.recommender import load_weights
from recbert.sharding import item_mesh, load_sharded
from recbert.tokenizer import ItemTokenizer

logger = logging.getLogger(__name__)


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    recipe, _ = load_recipe(recipe_parser("finetune"), arguments)
    check_loss(recipe)
    data, tokenizer, manifest = read_training_data(recipe)
    set_seed(recipe.training.seed)  # of the adapter's first weights; the Trainer seeds what follows
    model = adapted_model(recipe, tokenizer)
    counts = parameter_counts(model)
    logger.info(
        "parameters: %s in total, %s trainable; adapter of %s bytes",
        *(f"{counts[name]:,}" for name in ("total", "trainable", "adapter_bytes")),
    )
    train(recipe, model, objective_of(recipe, tokenizer, data["train"]), data, manifest)
    return 0


def adapted_model(recipe: Recipe, tokenizer: ItemTokenizer) -> PreTrainedModel:
    """Load the base of a recipe and add its adapter, if it has one.

    Args:
        recipe: the recipe.
        tokenizer: the vocabulary of its data.

    Raises:
        ValueError: the recipe does not go with the base.
    """
    model = _load_base(recipe, tokenizer)
    return model if recipe.adapter is None else _adapt(model, recipe.adapter)


def _load_base(recipe: Recipe, tokenizer: ItemTokenizer) -> PreTrainedModel:
    """Load the checkpoint to start from, after checking that the recipe goes with it."""
    base = recipe.model.base
    if base is None:
        raise ValueError(
            "model.base is missing: name the checkpoint to start from, or run `recbert pretrain`"
        )
    info = read_info(base)
    if find_file(base, "adapter_config.json") is not None:
        raise ValueError(
            f"model.base is {base}, an adapter: name the checkpoint that the adapter was trained on"
        )
    if ItemTokenizer.from_pretrained(base).item_ids != tokenizer.item_ids:
        raise ValueError(
            f"{recipe.data.prepared} was prepared with another vocabulary than {base} has: set "
            f"data.vocabulary to {base} and run `recbert prepare` again"
        )
    if info.input.objective != recipe.objective.name:
        raise ValueError(
            f"objective.name is {recipe.objective.name!r} and {base} was trained with "
            f"{info.input.objective!r}: use the base's"
        )
    for key, made in (
        ("start_token", info.input.starts_with_bos),
        ("anchoring", info.input.anchoring),
        ("time", info.input.time_encoding),
    ):
        wanted = getattr(recipe.objective, key)
        if wanted != made:
            raise ValueError(
                f"objective.{key} is {wanted} and {base} was trained with {made}: use the base's"
            )
    if recipe.model.shard_items:
        if recipe.adapter is not None:
            raise ValueError("the recipe has an adapter and model.shard_items: drop one of them")
        folder = base if Path(base).is_dir() else fetch(base)
        return load_sharded(folder, item_mesh(recipe.training.device), objective=info.input.objective)
    model = load_weights(base, info)
    if not recipe.model.tie_items:
        untie_items(model)
    return model


def _adapt(model: PreTrainedModel, config: AdapterConfig) -> PreTrainedModel:
    """Add the adapter of a recipe."""
    adapted = add_lora(
        model,
        r=config.r,
        alpha=config.alpha,
        dropout=config.dropout,
        target_modules=config.target_modules,
    )
    return cast(PreTrainedModel, adapted)
