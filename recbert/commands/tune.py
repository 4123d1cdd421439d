"""`recbert tune`: search for the best values of a recipe's keys by the validation metric."""

import gc
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from recbert.checkpoint import write_text
from recbert.commands.finetune import adapted_model
from recbert.commands.losses import check_loss
from recbert.commands.pretrain import new_model
from recbert.commands.session import objective_of, read_training_data, text_with_data
from recbert.evaluation.table import markdown_line
from recbert.recipe import Recipe, load_recipe, recipe_parser, replace_sections
from recbert.training import RecTrainer
from recbert.tuning import Measured, Study, TrialSummary, Value, corners, read_space

logger = logging.getLogger(__name__)

_PREPARED = ("data", "split", "sequences")
_FIXED = (
    "evaluation",
    "tune",
    "training.output_dir",
    "training.eval_strategy",
    "training.eval_steps",
    "training.metric_for_best_model",
    "training.greater_is_better",
)
_LOCAL = ("output_dir", "use_cpu", "report_to", "disable_tqdm", "dataloader_num_workers")
"""Training arguments that may differ between the processes of a study."""

_FAILURES = (ValueError, torch.OutOfMemoryError)


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    recipe, _ = load_recipe(recipe_parser("tune"), arguments)
    space = read_space(recipe.tune.space)
    _check_keys(arguments, space)
    _check_training(recipe)
    data, tokenizer, manifest = read_training_data(recipe)
    if "valid" not in data:
        raise ValueError(
            f"{recipe.data.prepared} has no validation part to choose by: prepare it with another split"
        )
    text = text_with_data(recipe, manifest)
    output = Path(recipe.training.output_dir or "")
    metric = str(recipe.training.metric_for_best_model).removeprefix("eval_")
    study = Study(
        recipe.tune.storage or output / "study.journal",
        recipe.tune.study or output.resolve().name,
        space,
        conditions={"metric": metric, "data": manifest["fingerprint"], **_conditions(recipe)},
        maximise=recipe.training.greater_is_better is not False,
        pruner=recipe.tune.pruner,
        seed=recipe.tune.seed,
    )

    def measure(number: int, values: dict[str, Value], report: Measured) -> None:
        shown = ", ".join(f"{key} {_show(value)}" for key, value in values.items())
        logger.info("trial %d (%d in all): %s", number, recipe.tune.trials, shown)
        _train(_trial_recipe(arguments, values, output / f"trial-{number}"), data, tokenizer, metric, report)

    study.run(recipe.tune.trials, measure, failures=_FAILURES)
    best = study.best()
    table = _table(study.summaries(), list(space), metric)
    chosen = load_recipe(recipe_parser("tune"), [*arguments, *_options(best.values)])[0]
    head = f"# Trial {best.number} of the study {study.name}: validation {metric} {best.best:.4f}.\n"
    write_text(output / "trials.md", table)
    write_text(output / "best.yaml", head + _best_text(chosen, text, output))
    sys.stdout.write(f"{table}\nThe best one is trial {best.number}: {output / 'best.yaml'}.\n")
    return 0


class _Reporter(TrainerCallback):
    """Tells the study each validation metric, and stops the training where the study says so."""

    def __init__(self, metric: str, report: Measured) -> None:
        self._metric, self._report = metric, report

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report the metric of the evaluation that has just ended."""
        if self._report((metrics or {})[f"eval_{self._metric}"]):
            control.should_training_stop = True


def _train(recipe: Recipe, data: Any, tokenizer: Any, metric: str, report: Measured) -> None:
    """Train one trial as `pretrain` or `finetune` would; nothing of it is kept but its metrics."""
    check_loss(recipe)
    set_seed(recipe.training.seed)
    is_new = recipe.model.base is None
    trainer = RecTrainer(
        new_model(recipe, tokenizer, data["train"]) if is_new else adapted_model(recipe, tokenizer).model,
        recipe.training,
        objective=objective_of(recipe, tokenizer, data["train"]),
        data=data,
        filter_seen=recipe.evaluation.filter_seen,
        callbacks=[_Reporter(metric, report)],
    )
    try:
        trainer.train()
    finally:
        del trainer
        gc.collect()  # a Trainer holds itself in circles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _check_keys(arguments: Sequence[str], space: dict[str, Any]) -> None:
    """Refuse a space with keys that a trial cannot change, unknown keys and values of a wrong type."""
    for key, dimension in space.items():
        section = key.partition(".")[0]
        if section in _PREPARED:
            raise ValueError(
                f"tune.space has {key!r}, and the prepared data depends on {section}: prepare the data for "
                "each value and tune on each"
            )
        if section in _FIXED or key in _FIXED:
            raise ValueError(f"tune.space has {key!r}: trials can only be compared where it is the same")
        for value in corners(dimension):
            load_recipe(recipe_parser("tune"), [*arguments, *_options({key: value})])


def _check_training(recipe: Recipe) -> None:
    """Refuse training arguments that give no metric to choose by, and several processes on one trial."""
    if recipe.model.backbone is not None:
        raise ValueError(
            "model.backbone is set: run `recbert finetune` once, and search with model.base on the "
            "`base` folder that it writes"
        )
    if recipe.training.eval_strategy == "no" or not recipe.training.metric_for_best_model:
        raise ValueError("training.eval_strategy is 'no' or metric_for_best_model is null: trials need both")
    if recipe.training.world_size > 1:
        raise ValueError(
            "a launcher started several processes for each trial: start `recbert tune` several times "
            "instead, the processes share the study"
        )
    if recipe.model.base is None and recipe.adapter is not None:
        raise ValueError("the recipe has an adapter and no model.base: name the checkpoint to adapt")


def _trial_recipe(arguments: Sequence[str], values: dict[str, Value], folder: Path) -> Recipe:
    """Give the recipe of a trial, which writes no checkpoints."""
    nothing: dict[str, Value] = {
        "training.output_dir": str(folder),
        "training.save_strategy": "no",
        "training.load_best_model_at_end": False,
    }
    return load_recipe(recipe_parser("tune"), [*arguments, *_options({**values, **nothing})])[0]


def _options(values: dict[str, Value]) -> list[str]:
    """Give values by key as a command line."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return [f"--{key}={text}" for key, text in texts.items()]


def _conditions(recipe: Recipe) -> dict[str, Any]:
    """Give what else of a recipe all trials of a study share."""
    sections = yaml.safe_load(recipe.text)
    return {
        f"{name}.{key}": value
        for name in ("model", "objective", "training")
        for key, value in sections[name].items()
        if key not in _LOCAL
    }


def _best_text(chosen: Recipe, made: str, output: Path) -> str:
    """Give the best recipe as YAML, with the data sections of the prepared data and a folder of its own."""
    sections = yaml.safe_load(chosen.text)
    sections.pop("tune", None)
    sections["training"]["output_dir"] = str(output / "best")
    data = {name: values for name, values in yaml.safe_load(made).items() if name in _PREPARED}
    return replace_sections(yaml.safe_dump(sections), data)


def _table(summaries: list[TrialSummary], keys: list[str], metric: str) -> str:
    """Give all trials as a table in Markdown, in the order in which they were drawn."""
    lines = [["trial", f"validation {metric}", "evaluations", "minutes", *keys, "outcome"]]
    lines.append(["---:"] * (len(keys) + 4) + ["---"])
    for summary in summaries:
        best = "" if summary.best is None else f"{summary.best:.4f}"
        minutes = "" if summary.minutes is None else f"{summary.minutes:.1f}"
        values = [_show(summary.values.get(key)) for key in keys]
        outcome = f"{summary.outcome}: {summary.reason}" if summary.reason else summary.outcome
        lines.append([str(summary.number), best, str(summary.evaluations), minutes, *values, outcome])
    return "".join(f"{markdown_line(line)}\n" for line in lines)


def _show(value: Value) -> str:
    """Give a value as a table shows it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
