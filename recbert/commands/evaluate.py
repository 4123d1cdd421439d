"""`recbert evaluate`: rank the full catalogue for every target, models and count baselines in one table."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recbert.baselines import ItemKNN, Markov, Popularity, RecentPopularity, SequentialRules
from recbert.checkpoint import read_info, write_text
from recbert.checkpoint.card import BLENDED, record_results
from recbert.commands.looks import LOOKS_FILE, log_look
from recbert.commands.session import leave_group, read_data
from recbert.evaluation import (
    Ranking,
    RankingMetrics,
    Scorer,
    build_bucket_table,
    build_table,
    describe_protocol,
    rank_targets,
)
from recbert.evaluation.saved import ranks_file, write_rankings
from recbert.inputs import TargetRows, TrainRows, describe_request_time, request_times
from recbert.recipe import EvaluationConfig, Recipe, load_recipe, recipe_parser
from recbert.recommender import Recommender
from recbert.tokenizer import ItemTokenizer

logger = logging.getLogger(__name__)

_PARTS = {"valid": "validation", "test": "test"}
COLUMNS = ("hit@10", "ndcg@10", "debiased-ndcg@10", "mrr@10", "coverage@10")


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    parser = recipe_parser("evaluate")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    recipe, options = load_recipe(parser, arguments)
    data, tokenizer, manifest = read_data(recipe)
    if recipe.evaluation.part not in data:
        raise ValueError(
            f"the prepared data has no {recipe.evaluation.part} part: its parts are {', '.join(data)}"
        )
    popularity = TrainRows(data["train"], least=1, seed=0).count_items(tokenizer.num_items)
    targets, asked = _targets(recipe, data, manifest)
    rankings: dict[str, Ranking] = {}
    for name, scorer in _scorers(recipe, data, tokenizer):
        rankings[name] = rank_targets(
            scorer,
            targets,
            filter_seen=recipe.evaluation.filter_seen,
            allow_repeats=recipe.evaluation.allow_repeats,
            batch_size=recipe.evaluation.batch_size,
            progress=True,
        )
    metrics = RankingMetrics(resamples=recipe.evaluation.bootstrap)
    split = f"{manifest['protocol']}; {_PARTS[recipe.evaluation.part]} part{asked}"
    against = next(iter(rankings)) if len(rankings) > 1 else None
    table = build_table(
        rankings,
        split=split,
        metrics=metrics,
        columns=COLUMNS,
        against=against,
        popularity=popularity,
    )
    buckets = build_bucket_table(rankings, popularity, metrics=metrics)
    result: dict[str, Any] = {
        "protocol": describe_protocol(split, next(iter(rankings.values())), metrics),
        "part": recipe.evaluation.part,
        "targets": len(targets),
        "data_fingerprint": manifest["fingerprint"],
        "models": {name: _figures(ranking, metrics, popularity) for name, ranking in rankings.items()},
    }
    leave_group()
    if not recipe.training.should_save:
        return 0  # another process writes
    report = _write(recipe, rankings, result, _settings(recipe, manifest), f"{table}\n{buckets}")
    sys.stdout.write(json.dumps(result) + "\n" if options.json else report)
    return 0


def _write(
    recipe: Recipe,
    rankings: dict[str, Ranking],
    result: dict[str, Any],
    settings: dict[str, Any],
    report: str,
) -> str:
    """Write all into the run's folder, a look at the test part first; give the report with its number."""
    output = Path(recipe.training.output_dir or "")
    output.mkdir(parents=True, exist_ok=True)
    is_test = recipe.evaluation.part == "test"
    if is_test:  # before anybody sees a figure
        result["look"] = log_look(output, dict(_checkpoints(recipe)), result, COLUMNS)
        report += f"\nLook number {result['look']} at the test part of this data ({output / LOOKS_FILE}).\n"
    path = ranks_file(output, recipe.evaluation.part)
    write_rankings(path, rankings, settings=settings, protocol=result["protocol"])
    write_text(output / "evaluation.json", json.dumps(result, indent=1) + "\n")
    write_text(output / "evaluation.md", report)
    if is_test:
        _record(recipe, result["data_fingerprint"], result)
    return report


def _settings(recipe: Recipe, manifest: dict[str, Any]) -> dict[str, Any]:
    """Give what another evaluation must share for its numbers to be comparable."""
    return {
        "data_fingerprint": manifest["fingerprint"],
        "split": manifest["protocol"],
        "part": recipe.evaluation.part,
        "filter_seen": recipe.evaluation.filter_seen,
        "allow_repeats": recipe.evaluation.allow_repeats,
        "request_time": recipe.evaluation.request_time,
    }


def _targets(recipe: Recipe, data: Any, manifest: dict[str, Any]) -> tuple[TargetRows, str]:
    """Give what to predict, and in words when it is asked for where a checkpoint is told."""
    targets = TargetRows(data[recipe.evaluation.part])
    kind = recipe.evaluation.request_time
    has_window = manifest["protocol"].startswith("global temporal split")
    targets.request_times = request_times(targets, kind, has_window=has_window)
    told = any(read_info(checkpoint).input.time_encoding for checkpoint, _ in _checkpoints(recipe))
    return targets, f"; {describe_request_time(kind, has_window=has_window)}" if told else ""


def _record(recipe: Recipe, fingerprint: str, result: dict[str, Any]) -> None:
    """Put the test figures and those of the baselines into the checkpoints that learnt from this data."""
    models = result["models"]
    baselines = {
        f"{name}/{metric}": models[name][metric] for name in recipe.evaluation.baselines for metric in COLUMNS
    }
    for checkpoint, name in _checkpoints(recipe):
        if Path(checkpoint).is_dir() and read_info(checkpoint).data_fingerprint == fingerprint:
            figures = {metric: models[name][metric] for metric in COLUMNS}
            for metric, (low, high) in models[name]["intervals"].items():
                figures |= {f"{metric}_low": low, f"{metric}_high": high}
            blended = models.get(f"{name} {BLENDED}", {})
            figures |= {f"{BLENDED}/{metric}": blended[metric] for metric in COLUMNS if blended}
            record_results(checkpoint, {**figures, **baselines}, result["protocol"])


def _scorers(recipe: Recipe, data: Any, tokenizer: ItemTokenizer) -> Iterator[tuple[str, Scorer]]:
    """Give everything to evaluate by the name to print: checkpoints (and their blends), then baselines."""
    for checkpoint, name in _checkpoints(recipe):
        recommender = Recommender.from_pretrained(checkpoint, device=recipe.training.device)
        if recommender.tokenizer.item_ids != tokenizer.item_ids:
            raise ValueError(
                f"{checkpoint} has another vocabulary than {recipe.data.prepared}: evaluate it on the data "
                "that it was trained on, or prepare the data with data.vocabulary set to it"
            )
        yield name, recommender.scorer
        if recommender.blended is not None:
            yield f"{name} {BLENDED}", recommender.blended
    for name in recipe.evaluation.baselines:
        baseline = _baseline(name, recipe.evaluation)
        baseline.fit(data["train"], tokenizer.num_items)
        yield name, baseline


def _baseline(name: str, config: EvaluationConfig) -> Any:
    """Build a baseline by its name in the recipe."""
    if name == "sequential-rules":
        return SequentialRules(window=config.rules_window)
    if name == "recent-popularity":
        return RecentPopularity(days=config.recent_days)
    return {"popularity": Popularity, "markov": Markov, "item-knn": ItemKNN}[name]()


def _checkpoints(recipe: Recipe) -> list[tuple[str, str]]:
    """Give each checkpoint and the name to print: the short one, or all of it where two would be the same."""
    own = str(Path(recipe.training.output_dir or "", "model"))
    checkpoints = dict.fromkeys(recipe.evaluation.checkpoints or [own])
    short = [*recipe.evaluation.baselines, *map(_short_name, checkpoints)]
    return [
        (checkpoint, checkpoint if short.count(_short_name(checkpoint)) > 1 else _short_name(checkpoint))
        for checkpoint in checkpoints
    ]


def _short_name(checkpoint: str) -> str:
    """Give the name of a checkpoint for a table: its folder, or the run's if that is called `model`."""
    path = Path(checkpoint)
    return path.parent.name if path.name == "model" else path.name


def _figures(ranking: Ranking, metrics: RankingMetrics, popularity: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Give all metrics of a ranking, with intervals of the main ones and the rows by popularity."""
    return {
        **metrics.compute(ranking, popularity),
        "intervals": {name: metrics.bootstrap(ranking, name) for name in ("hit@10", "ndcg@10")},
        "by_popularity": metrics.by_popularity(ranking, popularity),
    }
