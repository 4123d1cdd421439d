"""`recbert compact`: drop items that are rare or long unseen from a checkpoint, into a new generation."""

import argparse
import logging
from typing import Any

from recbert.checkpoint import read_info
from recbert.commands.histories import COLUMNS, add_column_options, parse_time
from recbert.events import item_events, read_events
from recbert.recommender import compact_checkpoint
from recbert.tokenizer import ItemTokenizer

logger = logging.getLogger(__name__)


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    if options.since is not None and options.events is None:
        raise ValueError("--since needs --events: a checkpoint does not know when its items were seen")
    if options.since is None and options.min_count is None:
        raise ValueError("give --min-count N or --since TIME, or both: otherwise every item stays")
    dropped = compact_checkpoint(options.checkpoint, options.output, _kept(options))
    logger.info("%s: %s items dropped", options.output, f"{dropped:,}")
    return 0


def _kept(options: argparse.Namespace) -> set[str]:
    """Give the items that stay: those with enough events, seen late enough, or not yet trained."""
    items, info = ItemTokenizer.from_pretrained(options.checkpoint).item_ids, read_info(options.checkpoint)
    new = set(items[len(items) - info.untrained_items :])
    least = 0 if options.min_count is None else options.min_count
    if options.events is None:
        return new | {item for item, count in zip(items, info.popularity, strict=True) if count >= least}
    columns: dict[str, Any] = {name: getattr(options, name) for name in COLUMNS}
    since = float("-inf") if options.since is None else options.since
    seen = item_events(read_events(options.events, **columns))
    return new | {item for item, events in seen.items() if events.number >= least and events.last >= since}


def _parser() -> argparse.ArgumentParser:
    """Give the command line."""
    parser = argparse.ArgumentParser(prog="recbert compact", description=__doc__, allow_abbrev=False)
    parser.add_argument("--checkpoint", required=True, help="folder or Hub id of the generation as it is")
    parser.add_argument("--output", required=True, help="folder of the new generation; the old one will do")
    parser.add_argument("--min-count", type=int, help="events that keep an item, in training or in --events")
    parser.add_argument("--events", help="event files to count in instead")
    parser.add_argument("--since", type=parse_time, metavar="TIME", help="drop what was last seen before")
    add_column_options(parser)
    return parser
