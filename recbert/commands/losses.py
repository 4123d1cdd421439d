"""The loss of a recipe."""

from typing import Any

from recbert.inputs import TrainRows
from recbert.objectives import FullSoftmax, PopularitySampler, SampledSoftmax, UniformSampler
from recbert.objectives.losses import Sampler
from recbert.recipe import Recipe
from recbert.tokenizer import ItemTokenizer


def build_loss(recipe: Recipe, tokenizer: ItemTokenizer, train: Any) -> FullSoftmax | SampledSoftmax:
    """Build the loss of a recipe.

    Args:
        recipe: the recipe.
        tokenizer: the vocabulary of its data.
        train: their training part, whose items a popularity sampler counts.

    Raises:
        ValueError: two keys of the recipe do not go together, or one is out of range.
    """
    config = recipe.objective
    if config.label_smoothing and config.loss != "full":
        raise ValueError(
            f"objective.label_smoothing is {config.label_smoothing} and objective.loss is {config.loss!r}: "
            "only 'full' has all items to spread it over, leave label_smoothing 0"
        )
    if config.label_smoothing and recipe.model.shard_items:
        raise ValueError(
            f"objective.label_smoothing is {config.label_smoothing} and model.shard_items is true: a split "
            "table has no mean row at hand, leave label_smoothing 0"
        )
    if config.loss == "full":
        return FullSoftmax(config.label_smoothing)
    return SampledSoftmax(config.negatives, sampler=_build_sampler(recipe, tokenizer, train))


def _build_sampler(recipe: Recipe, tokenizer: ItemTokenizer, train: Any) -> Sampler:
    """Build the sampler of negatives of a recipe."""
    if recipe.objective.sampler == "uniform":
        return UniformSampler(tokenizer.num_items)
    if recipe.data.streaming:
        raise ValueError(
            "sampler is 'popularity', which counts the training events before training, but data.streaming "
            "reads them only once: take 'uniform', or read the data from a folder without streaming"
        )
    return PopularitySampler(TrainRows(train, least=1, seed=0).count_items(tokenizer.num_items))
