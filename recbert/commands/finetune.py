"""`recbert finetune`: adapt a checkpoint to other data, with LoRA where the recipe has an adapter section."""

import logging
from pathlib import Path
from typing import NamedTuple, cast

from transformers import PreTrainedModel, set_seed

from recbert.adapters import add_lora, parameter_counts
from recbert.checkpoint import CheckpointInfo, find_file, read_info
from recbert.commands.backbone import write_base
from recbert.commands.losses import check_loss
from recbert.commands.session import objective_of, read_training_data, train
from recbert.growth import NEIGHBOURS, grow_tables
from recbert.hub import fetch
from recbert.models import item_table, untie_items
from recbert.recipe import AdapterConfig, ModelConfig, ObjectiveConfig, Recipe, load_recipe, recipe_parser
from recbert.recommender import item_words, load_weights, nearest_items
from recbert.sharding import item_mesh, load_sharded
from recbert.tokenizer import ItemTokenizer
from recbert.training import Lineage

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
    if recipe.model.backbone is not None:
        base = write_base(recipe, tokenizer, data, manifest)
        recipe.model = ModelConfig(base=base)
    model, lineage = adapted_model(recipe, tokenizer)
    counts = parameter_counts(model)
    logger.info(
        "parameters: %s in total, %s trainable; adapter of %s bytes",
        *(f"{counts[name]:,}" for name in ("total", "trainable", "adapter_bytes")),
    )
    train(recipe, model, objective_of(recipe, tokenizer, data["train"]), data, manifest, lineage)
    return 0


class Adapted(NamedTuple):
    """A model to train.

    Attributes:
        model: it.
        lineage: what it has from its base.
    """

    model: PreTrainedModel
    lineage: Lineage


def adapted_model(recipe: Recipe, tokenizer: ItemTokenizer) -> Adapted:
    """Load the base of a recipe, give it rows for new items, and add its adapter, if it has one.

    Args:
        recipe: the recipe.
        tokenizer: the vocabulary of its data.

    Raises:
        ValueError: the recipe does not go with the base.
    """
    base = _base(recipe)
    info = read_info(base)
    _check_objective(recipe.objective, base, info)
    old = ItemTokenizer.from_pretrained(base)
    count = _count_new(recipe, old, tokenizer)
    lineage = Lineage(info.generation, 0 if recipe.adapter is None else count, info.deny_list)
    if recipe.model.shard_items:
        return Adapted(_load_sharded(recipe, base, info, count), lineage)
    model = load_weights(base, info)
    if count:
        _grow(model, recipe, old, tokenizer)
    if not recipe.model.tie_items:
        if recipe.adapter is not None and item_table(model)[0] is model.get_input_embeddings().weight:
            raise ValueError(
                "the recipe has an adapter and model.tie_items false, and the base has one table: an adapter "
                "does not bring a second one, drop one of them"
            )
        untie_items(model)
    if recipe.adapter is not None:
        model = _adapt(model, recipe.adapter, count + info.untrained_items)
    return Adapted(model, lineage)


def _base(recipe: Recipe) -> str:
    """Give the checkpoint to start from."""
    base = recipe.model.base
    if base is None:
        raise ValueError(
            "model.base is missing: name the checkpoint to start from, or run `recbert pretrain`"
        )
    if find_file(base, "adapter_config.json") is not None:
        raise ValueError(
            f"model.base is {base}, an adapter: name the checkpoint that the adapter was trained on"
        )
    return base


def _check_objective(config: ObjectiveConfig, base: str, info: CheckpointInfo) -> None:
    """Refuse an objective other than the one that the base was trained with."""
    if info.input.objective != config.name:
        raise ValueError(
            f"objective.name is {config.name!r} and {base} was trained with {info.input.objective!r}: use "
            "the base's"
        )
    for key, made in (
        ("start_token", info.input.starts_with_bos),
        ("anchoring", info.input.anchoring),
        ("time", info.input.time_encoding),
    ):
        wanted = getattr(config, key)
        if wanted != made:
            raise ValueError(
                f"objective.{key} is {wanted} and {base} was trained with {made}: use the base's"
            )


def _count_new(recipe: Recipe, old: ItemTokenizer, tokenizer: ItemTokenizer) -> int:
    """Count the items of the data that the base does not have; they have to stand behind the base's."""
    if not tokenizer.extends(old):
        raise ValueError(
            f"{recipe.data.prepared} was prepared with another vocabulary than {recipe.model.base} has: set "
            f"data.vocabulary to {recipe.model.base} (and data.new_items to let new ones in) and run "
            "`recbert prepare` again"
        )
    return len(tokenizer) - len(old)


def _grow(model: PreTrainedModel, recipe: Recipe, old: ItemTokenizer, tokenizer: ItemTokenizer) -> None:
    """Add rows for the items that the base does not have."""
    new, near = tokenizer.item_ids[old.num_items :], None
    if recipe.model.new_rows == "neighbours":
        if recipe.data.items is None:
            raise ValueError("model.new_rows is 'neighbours' and data.items is null: name the table of items")
        words = dict(zip(*item_words(recipe.data.items), strict=True))
        near = nearest_items([words.get(item, "") for item in new], words, old, NEIGHBOURS)
    grow_tables(model, len(new), near)
    logger.info("%s new items behind the %s of the base", f"{len(new):,}", f"{old.num_items:,}")


def _load_sharded(recipe: Recipe, base: str, info: CheckpointInfo, new_items: int) -> PreTrainedModel:
    """Load a base whose item table is split over the processes."""
    if recipe.adapter is not None:
        raise ValueError("the recipe has an adapter and model.shard_items: drop one of them")
    if new_items:
        raise ValueError(
            f"the data has {new_items} items more than the base and model.shard_items is true: add them to "
            "the base first, with `recbert add-items`"
        )
    folder = base if Path(base).is_dir() else fetch(base)
    return load_sharded(folder, item_mesh(recipe.training.device), objective=info.input.objective)


def _adapt(model: PreTrainedModel, config: AdapterConfig, new_rows: int) -> PreTrainedModel:
    """Add the adapter of a recipe."""
    adapted = add_lora(
        model,
        r=config.r,
        alpha=config.alpha,
        dropout=config.dropout,
        target_modules=config.target_modules,
        new_rows=new_rows,
        use_dora=config.use_dora,
        use_rslora=config.use_rslora,
        modules_to_save=config.modules_to_save,
    )
    return cast(PreTrainedModel, adapted)
