"""`recbert pretrain`: train a new model on prepared data."""

from transformers import PreTrainedModel, set_seed

from recbert.commands.losses import check_loss
from recbert.commands.session import objective_of, read_training_data, train
from recbert.models import build_model
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
    if recipe.model.base is not None or recipe.adapter is not None:
        raise ValueError("the recipe has model.base or adapter: run `recbert finetune` with it")
    check_loss(recipe)
    data, tokenizer, manifest = read_training_data(recipe)
    set_seed(recipe.training.seed)  # of the first weights; the Trainer seeds what follows
    model = new_model(recipe, tokenizer)
    train(recipe, model, objective_of(recipe, tokenizer, data["train"]), data, manifest)
    return 0


def new_model(recipe: Recipe, tokenizer: ItemTokenizer) -> PreTrainedModel:
    """Build the model of a recipe with random weights.

    Args:
        recipe: the recipe.
        tokenizer: the vocabulary of its data.
    """
    size = recipe.model
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
    if size.shard_items:
        mesh = item_mesh(recipe.training.device)
        shard_items(model, len(tokenizer), mesh, seed=recipe.training.seed)
    return model
