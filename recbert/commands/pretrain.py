"""`recbert pretrain`: train a new model on prepared data."""

from typing import Any

from transformers import PreTrainedModel, set_seed

from recbert.baselines import cooccurrence_vectors, tell_apart
from recbert.commands.losses import check_loss
from recbert.commands.session import objective_of, read_training_data, train
from recbert.models import build_model, mirror_items, start_items
from recbert.recipe import Recipe, load_recipe, recipe_parser
from recbert.sharding import item_mesh, shard_items
from recbert.tokenizer import ItemTokenizer


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    recipe, _ = load_recipe(recipe_parser("pretrain"), arguments)
    if recipe.model.base is not None or recipe.model.backbone is not None or recipe.adapter is not None:
        raise ValueError(
            "the recipe has model.base, model.backbone or adapter: run `recbert finetune` with it"
        )
    if recipe.model.item_vectors not in (None, "cooccurrence"):
        raise ValueError(f"model.item_vectors is {recipe.model.item_vectors!r}, which needs a model.backbone")
    check_loss(recipe)
    data, tokenizer, manifest = read_training_data(recipe)
    set_seed(recipe.training.seed)  # of the first weights; the Trainer seeds what follows
    model = new_model(recipe, tokenizer, data["train"])
    train(recipe, model, objective_of(recipe, tokenizer, data["train"]), data, manifest)
    return 0


def new_model(recipe: Recipe, tokenizer: ItemTokenizer, train: Any) -> PreTrainedModel:
    """Build the untrained model of a recipe.

    Args:
        recipe: the recipe.
        tokenizer: the vocabulary of its data.
        train: their training part, from which items may take where they begin.

    Raises:
        ValueError: items are to begin at vectors, and the data is streamed or the item table split.
    """
    size = recipe.model
    for key, is_set in (("data.streaming", recipe.data.streaming), ("model.shard_items", size.shard_items)):
        if size.item_vectors is not None and is_set:
            raise ValueError(
                f"model.item_vectors is {size.item_vectors!r} and {key} is true: drop one of them"
            )
    model = build_model(
        size.family,
        ItemTokenizer(["any"]) if size.shard_items else tokenizer,  # that table is drawn row by row below
        objective=recipe.objective.name,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.num_hidden_layers,
        num_attention_heads=size.num_attention_heads,
        intermediate_size=size.intermediate_size,
        dropout=size.dropout,
        max_length=recipe.sequences.max_length,
        tie_items=size.tie_items,
        time_encoding=recipe.objective.time,
        mimetic=size.mimetic,
    )
    if size.item_vectors is not None:
        _place_items(model, recipe, train, tokenizer.num_items)
    if size.shard_items:
        mesh = item_mesh(recipe.training.device)
        shard_items(model, len(tokenizer), mesh, seed=recipe.training.seed)
    return model


def _place_items(model: PreTrainedModel, recipe: Recipe, train: Any, num_items: int) -> None:
    """Let items begin where they co-occur, mirrored ones in the half of the width that both tables share."""
    size = recipe.model
    if size.tie_items != "mirrored":
        start_items(model, *cooccurrence_vectors(train, num_items, size.hidden_size))
        return
    first = tell_apart(cooccurrence_vectors(train, num_items, size.hidden_size // 2).first, size.hidden_size)
    start_items(model, first, first)
    mirror_items(model)
