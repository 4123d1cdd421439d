"""`recbert blend`: blend a run's model with sequential rules, the way that is best on the validation part."""

import logging
import sys
from pathlib import Path

from recbert.baselines import SequentialRules, limit_links
from recbert.checkpoint import INFO_FILE, Blend, read_info
from recbert.commands.session import TRAINING_PARTS, read_data
from recbert.inputs import TargetRows
from recbert.recipe import Recipe, load_recipe, recipe_parser
from recbert.recommender import MOST_RULES, Choice, Recommender, save_blend, try_blends
from recbert.recommender.blend_choice import POWERS, WEIGHTS

logger = logging.getLogger(__name__)

WINDOWS = (2, 5, 10, 20)


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    parser = recipe_parser("blend")
    parser.add_argument("--off", action="store_true", help="remove the blend of the run's checkpoint")
    recipe, options = load_recipe(parser, arguments)
    checkpoint = Path(recipe.training.output_dir or "", "model")
    if not Path(checkpoint, INFO_FILE).is_file():
        raise FileNotFoundError(f"{checkpoint} is no checkpoint: train one with this recipe first")
    if options.off:
        save_blend(checkpoint, None)
        logger.info("%s ranks by its model alone", checkpoint)
        return 0
    _choose(recipe, checkpoint)
    return 0


def _choose(recipe: Recipe, checkpoint: Path) -> None:
    """Try the blends on the validation part and put the best one into the checkpoint."""
    data, tokenizer, manifest = read_data(recipe, TRAINING_PARTS)
    if "valid" not in data:
        raise ValueError(
            "the prepared data has no valid part: a blend is chosen there, prepare data with one"
        )
    if read_info(checkpoint).data_fingerprint != manifest["fingerprint"]:
        raise ValueError(
            f"{checkpoint} was trained on other data than {recipe.data.prepared}: blend it with the recipe "
            "that it was trained with"
        )
    rules = {
        window: limit_links(SequentialRules(window).fit(data["train"], tokenizer.num_items).links, MOST_RULES)
        for window in WINDOWS
    }
    choice = try_blends(
        Recommender.from_pretrained(checkpoint, device=recipe.training.device).scorer,
        rules,
        TargetRows(data["valid"]),
        filter_seen=recipe.evaluation.filter_seen,
        allow_repeats=recipe.evaluation.allow_repeats,
        batch_size=recipe.evaluation.batch_size,
    )
    sys.stdout.write(_describe(choice))
    best = choice.best
    save_blend(checkpoint, best, None if best is None else rules[best.window])
    logger.info(
        "%s ranks %s from now on", checkpoint, "by its model alone" if best is None else f"with {best}"
    )


def _describe(choice: Choice) -> str:
    """Print what was measured: the best of each window, and all of the best window."""
    best = max(choice.blends, key=lambda blend: choice.blends[blend])
    lines = [f"validation NDCG@10, the model alone: {choice.alone:.4f}"]
    for window in dict.fromkeys(blend.window for blend in choice.blends):
        tried = [blend for blend in choice.blends if blend.window == window]
        first = max(tried, key=lambda blend: choice.blends[blend])
        found = f"{choice.blends[first]:.4f} with weight {first.weight:g} and power {first.power:g}"
        lines.append(f"window {window:3d}: {found}")
    lines += ["", f"window {best.window}, weight across and power down:"]
    lines.append("power " + "".join(f"{weight:8g}" for weight in WEIGHTS))
    for power in POWERS:
        row = (choice.blends[Blend(best.window, weight, power)] for weight in WEIGHTS)
        lines.append(f"{power:5g} " + "".join(f"{value:8.4f}" for value in row))
    return "\n".join([*lines, ""])
