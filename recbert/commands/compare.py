"""`recbert compare`: runs that were evaluated on the same targets, each against the first one."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from recbert.evaluation import Ranking, RankingMetrics
from recbert.evaluation.comparison import build_comparison_table, compare_recipes, plain_figures
from recbert.evaluation.saved import SavedRankings, ranks_file, read_rankings

_HELP = """\
A RUN is the folder of a run (training.output_dir) that `recbert evaluate` has ranked. FOLDER:MODEL takes
another row of its table than the first, such as FOLDER:sequential-rules. NAME=FOLDER,FOLDER,FOLDER averages
the seeds of one recipe."""


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="recbert compare",
        description=f"{__doc__}\n\n{_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="the first one is what the others are compared with"
    )
    parser.add_argument("--part", choices=("test", "valid"), default="test", help="the part that was ranked")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(arguments)
    recipes: dict[str, list[Ranking]] = {}
    first: tuple[str, SavedRankings] | None = None
    for text in options.runs:
        name, places = _parse(text)
        if name in recipes:
            raise ValueError(f"two runs are called {name}: name them, as in NAME={','.join(places)}")
        recipes[name] = []
        for place in places:
            ranking, saved = _read(place, options.part)
            first = first or (place, saved)
            _check_same(first, (place, saved))
            recipes[name].append(ranking)
    figures = compare_recipes(recipes)
    protocol = "" if first is None else first[1].protocol
    if options.json:
        sys.stdout.write(json.dumps({"protocol": protocol, "recipes": plain_figures(figures)}) + "\n")
    else:
        sys.stdout.write(f"{build_comparison_table(figures)}\n{_note(figures, protocol)}\n")
    return 0


def _parse(text: str) -> tuple[str, list[str]]:
    """Give the name of a RUN and its places."""
    name, mark, places = text.partition("=")
    if not mark or Path(text).is_dir():
        name, places = "", text
    found = [place for place in places.split(",") if place]
    if not found:
        raise ValueError(f"the run {text!r} names no folder: give FOLDER or NAME=FOLDER,FOLDER")
    return name or ", ".join(dict.fromkeys(_short_name(place) for place in found)), found


def _short_name(place: str) -> str:
    """Give the name of a place for the table: the folder's, with the model if one was asked for."""
    folder, model = _divide(place)
    return f"{Path(folder).resolve().name}:{model}" if model else Path(folder).resolve().name


def _divide(place: str) -> tuple[str, str]:
    """Divide FOLDER:MODEL; a folder may have colons in its name."""
    folder, _, model = place.rpartition(":")
    return (place, "") if not folder or Path(place).is_dir() else (folder, model)


def _read(place: str, part: str) -> tuple[Ranking, SavedRankings]:
    """Read the ranking that a place means."""
    folder, model = _divide(place)
    saved = read_rankings(ranks_file(folder, part))
    model = model or next(iter(saved.rankings))
    if model not in saved.rankings:
        raise ValueError(f"{folder} has no ranks of {model!r}: it has {', '.join(saved.rankings)}")
    return saved.rankings[model], saved


def _check_same(first: tuple[str, SavedRankings], other: tuple[str, SavedRankings]) -> None:
    """Refuse evaluations whose numbers cannot be compared."""
    (one, mine), (two, theirs) = ((place, saved.settings) for place, saved in (first, other))
    for key in sorted({*mine, *theirs}):
        if mine.get(key) != theirs.get(key):
            raise ValueError(
                f"{two} was evaluated with {key} {theirs.get(key)!r} and {one} with {mine.get(key)!r}: "
                "evaluate both alike"
            )


def _note(figures: Any, protocol: str) -> str:
    """Say what the table shows."""
    several = any(len(figure.seeds) > 1 for row in figures.values() for figure in row.values())
    spread = (
        " A target counts with its mean over the seeds; ± is their standard deviation." if several else ""
    )
    paired = " Differences are paired: the same users are drawn for both." if len(figures) > 1 else ""
    return f"{protocol} Here with {RankingMetrics().resamples:,} resamples.{spread}{paired}"
