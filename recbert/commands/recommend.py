"""`recbert recommend`: the next items of one history, or of every user in event files."""

import argparse
import json
import logging
import sys
from pathlib import Path

from tqdm import tqdm

from recbert.commands.histories import (
    COLUMNS,
    add_column_options,
    add_time_option,
    missing_shards,
    read_histories,
    times_of,
    write_shard,
)
from recbert.events.items import read_titles
from recbert.recommender import Recommender

logger = logging.getLogger(__name__)


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    if (options.history is None) == (options.histories is None):
        raise ValueError("give either --history ITEM ... or --histories FILES --output FOLDER")
    if options.histories is not None and options.output is None:
        raise ValueError("--output is missing: name the folder for the answers")
    titles = {} if options.items is None else read_titles(options.items)
    recommender = Recommender.from_pretrained(
        options.checkpoint, base=options.base, titles=titles, device=options.device
    )
    if options.history is None:
        _answer_files(recommender, options)
    else:
        _answer_one(recommender, options)
    return 0


def _answer_one(recommender: Recommender, options: argparse.Namespace) -> None:
    """Print the answer to one history."""
    answer = recommender.recommend(
        options.history,
        options.k,
        exclude=options.exclude,
        filter_seen=options.filter_seen,
        candidates=options.candidates,
        strict=options.strict,
        timestamps=options.timestamps,
        at=options.at,
    )
    rows = [
        {"item_id": item, "score": score, "title": recommender.titles.get(item)} for item, score in answer
    ]
    if options.json:
        result = {
            "answered_by": _source(recommender, options.history),
            "unknown_items": recommender.unknown_items(options.history),
            "recommendations": rows,
        }
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
        return
    if recommender.titles:
        for item in options.history:
            sys.stdout.write(f"  seen  {item:>10}  {recommender.titles.get(item, '?')}\n")
    for place, row in enumerate(rows, 1):
        sys.stdout.write(f"{place:6d}  {row['item_id']:>10}  {row['title'] or ''}  {row['score']:.3f}\n")


def _answer_files(recommender: Recommender, options: argparse.Namespace) -> None:
    """Write the answers to many histories, shard by shard."""
    histories = read_histories(options.histories, *(getattr(options, name) for name in COLUMNS))
    output = Path(options.output)
    aside = ("output", "device", "json", "items", "history", "timestamps", "batch_size")
    request = {name: value for name, value in vars(options).items() if name not in aside}
    for path, shard in tqdm(
        list(missing_shards(histories, output, options.shard_size, request)), desc="Shards"
    ):
        answers = [
            answer
            for start in range(0, len(shard), options.batch_size)
            for answer in recommender.recommend(
                [row.items for row in shard[start : start + options.batch_size]],
                options.k,
                exclude=options.exclude,
                filter_seen=options.filter_seen,
                candidates=options.candidates,
                strict=options.strict,
                timestamps=times_of(shard[start : start + options.batch_size]),
                at=options.at,
            )
        ]
        columns = {
            "user_id": [row.user for row in shard],
            "item_ids": [[item for item, _ in answer] for answer in answers],
            "scores": [[score for _, score in answer] for answer in answers],
            "answered_by": [_source(recommender, row.items) for row in shard],
        }
        write_shard(path, columns)
    logger.info("%s holds the answers for %s users", output, f"{len(histories):,}")


def _source(recommender: Recommender, history: list[str]) -> str:
    """Say what answers a history."""
    return "popularity" if len(recommender.unknown_items(history)) == len(history) else "model"


def _parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="recbert recommend", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--checkpoint", required=True, help="folder or Hub id of a checkpoint or adapter")
    add("--base", help="folder or Hub id of an adapter's base, if it is not where the adapter says")
    add("--history", nargs="*", metavar="ITEM", help="item ids of one user, the earliest first")
    add("--timestamps", nargs="*", type=float, metavar="SECONDS", help="epoch seconds of --history")
    add("--histories", metavar="FILES", help="event files, or Parquet with lists in a column `history`")
    add_column_options(parser)
    add_time_option(parser)
    add("--output", help="folder for the answers to --histories")
    add("--k", type=int, default=10, help="items a user (10)")
    add("--exclude", nargs="*", default=[], metavar="ITEM", help="items to leave out")
    add("--candidates", nargs="*", metavar="ITEM", help="rank only these")
    add("--filter-seen", action=argparse.BooleanOptionalAction, help="leave out items of the history")
    add("--strict", action="store_true", help="refuse a history without a known item")
    add("--items", help="table with item_id and title, for display")
    add("--device", default="cpu")
    add("--batch-size", type=int, default=256)
    add("--shard-size", type=int, default=100_000, help="users in an output file (100000)")
    add("--json", action="store_true", help="print one JSON object")
    return parser
