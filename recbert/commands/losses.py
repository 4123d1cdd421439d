"""The loss of a recipe."""

from typing import Any

from recbert.inputs import TrainRows
from recbert.objectives import (
    GBCE,
    BatchSampler,
    FullSoftmax,
    PopularitySampler,
    SampledSoftmax,
    Tempered,
    UniformSampler,
)
from recbert.objectives.losses import Loss, Sampler
from recbert.recipe import ObjectiveConfig, Recipe
from recbert.tokenizer import ItemTokenizer


def check_loss(recipe: Recipe) -> None:
    """Refuse pairs of loss keys that do not go together, before anything is read or built.

    Args:
        recipe: the recipe.

    Raises:
        ValueError: two keys of the recipe do not go together; the message names both.
    """
    for wrong, message in [*_conflicts_of_losses(recipe.objective), *_conflicts_with_the_rest(recipe)]:
        if wrong:
            raise ValueError(message)


def _conflicts_of_losses(config: ObjectiveConfig) -> list[tuple[bool, str]]:
    """Give, for each pair of loss keys that may not go together, whether it does and what to say."""
    loss, sampler = f"objective.loss is {config.loss!r}", f"objective.sampler is {config.sampler!r}"
    has_margin, margin = config.seen_margin is not None, f"objective.seen_margin is {config.seen_margin}"
    return [
        (
            config.label_smoothing > 0 and config.loss != "full",
            f"objective.label_smoothing is {config.label_smoothing} and {loss}: only 'full' has all items to "
            "spread it over, leave label_smoothing 0",
        ),
        (
            config.sampler != "uniform" and config.loss == "gbce",
            f"{sampler} and {loss}: its calibration holds for 'uniform' draws, take these or loss 'sampled'",
        ),
        (
            config.sampler != "uniform" and config.loss == "full",
            f"{sampler} and {loss}: nothing is drawn, take loss 'sampled' or leave the sampler 'uniform'",
        ),
        (
            config.negatives_per == "sequence" and config.loss == "full",
            f"objective.negatives_per is 'sequence' and {loss}: nothing is drawn, take another loss or leave "
            "negatives_per 'batch'",
        ),
        (
            has_margin and config.loss != "sampled",
            f"{margin} and {loss}: only 'sampled' holds seen items down",
        ),
        (
            has_margin and config.name != "next-item",
            f"{margin} and objective.name is {config.name!r}: what was seen before stands in the order of "
            "events only with 'next-item'",
        ),
        (
            has_margin and config.horizon > 1,
            f"{margin} and objective.horizon is {config.horizon}: labels are not in the order of events "
            "then, leave horizon 1",
        ),
        (
            config.temperature is not None and config.loss == "gbce",
            f"objective.temperature is {config.temperature} and {loss}: cosines reach no probability near 0, "
            "which it calibrates, take 'full' or 'sampled'",
        ),
        (
            config.learn_temperature and config.temperature is None,
            "objective.learn_temperature is true and objective.temperature is null: give it a start",
        ),
    ]


def _conflicts_with_the_rest(recipe: Recipe) -> list[tuple[bool, str]]:
    """Give the same for pairs of a loss key and a key of another section."""
    config, sharded = recipe.objective, recipe.model.shard_items
    heated, temperature = config.temperature is not None, f"objective.temperature is {config.temperature}"
    sampler = f"objective.sampler is {config.sampler!r}"
    per = f"objective.negatives_per is {config.negatives_per!r}"
    from_batch, by_sequence = config.sampler in ("in-batch", "mixed"), config.negatives_per == "sequence"
    has_margin, margin = config.seen_margin is not None, f"objective.seen_margin is {config.seen_margin}"
    return [
        (
            sharded and recipe.model.tie_items is not True,
            f"model.tie_items is {str(recipe.model.tie_items).lower()} and model.shard_items is true: only "
            "one shared table can be split, drop one of them",
        ),
        (
            recipe.model.tie_items == "mirrored" and bool(recipe.training.fsdp),
            "model.tie_items is 'mirrored' and training.fsdp is set: gradients of whole tables are needed, "
            "drop one of them",
        ),
        (
            config.label_smoothing > 0 and sharded,
            f"objective.label_smoothing is {config.label_smoothing} and model.shard_items is true: a split "
            "table has no mean row, drop one of them",
        ),
        (
            from_batch and sharded,
            f"{sampler} and model.shard_items is true: each process would draw from its own labels alone, "
            "take 'uniform' or 'popularity'",
        ),
        (
            (from_batch or by_sequence or has_margin) and recipe.training.packing,
            f"{per if by_sequence else sampler if from_batch else margin} and training.packing is true: a "
            "packed batch does not tell its sequences apart, leave packing false",
        ),
        (
            has_margin and sharded,
            f"{margin} and model.shard_items is true: that was not tried, drop one of them",
        ),
        (
            heated and sharded,
            f"{temperature} and model.shard_items is true: a split table is not put on a sphere, drop one",
        ),
        (
            heated and recipe.adapter is not None,
            f"{temperature} and the recipe has an adapter, which leaves the item table as it is: drop one",
        ),
    ]


def build_loss(recipe: Recipe, tokenizer: ItemTokenizer, train: Any) -> Loss:
    """Build the loss of a recipe.

    Args:
        recipe: the recipe.
        tokenizer: the vocabulary of its data.
        train: their training part, whose items a sampler counts.

    Raises:
        ValueError: a key is out of range, or the sampler needs counts that a stream does not have.
    """
    config = recipe.objective
    if config.loss == "gbce":
        return GBCE(
            config.negatives,
            num_items=tokenizer.num_items,
            calibration=config.calibration,
            per=config.negatives_per,
        )
    loss: FullSoftmax | SampledSoftmax = FullSoftmax(config.label_smoothing)
    if config.loss == "sampled":
        sampler = _build_sampler(recipe, tokenizer, train)
        loss = SampledSoftmax(
            config.negatives, sampler=sampler, per=config.negatives_per, seen_margin=config.seen_margin
        )
    if config.temperature is None:
        return loss
    return Tempered(loss, config.temperature, config.learn_temperature)


def _build_sampler(recipe: Recipe, tokenizer: ItemTokenizer, train: Any) -> Sampler:
    """Build the sampler of negatives of a recipe."""
    name = recipe.objective.sampler
    if name == "uniform":
        return UniformSampler(tokenizer.num_items)
    if recipe.data.streaming:
        raise ValueError(
            f"sampler is {name!r}, which counts the training events before training, but data.streaming "
            "reads them only once: take 'uniform', or read the data from a folder without streaming"
        )
    counts = TrainRows(train, least=1, seed=0).count_items(tokenizer.num_items)
    if name == "popularity":
        return PopularitySampler(counts)
    return BatchSampler(counts, 1.0 if name == "in-batch" else recipe.objective.in_batch_share)
