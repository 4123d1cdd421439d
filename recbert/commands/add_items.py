"""`recbert add-items`: take new items into the catalogue of a checkpoint, without training."""

import argparse
import logging
from typing import get_args

from recbert.growth import NEIGHBOURS, Start
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
    recommender = Recommender.from_pretrained(options.checkpoint)
    before = recommender.tokenizer.num_items
    recommender.add_items(
        options.items, start=options.start, neighbours=options.neighbours, known=options.known
    )
    recommender.save_pretrained(options.output)
    logger.info("%s: %s items, of %s before", options.output, recommender.tokenizer.num_items, before)
    return 0


def _parser() -> argparse.ArgumentParser:
    """Give the command line."""
    parser = argparse.ArgumentParser(prog="recbert add-items", description=__doc__, allow_abbrev=False)
    parser.add_argument("--checkpoint", required=True, help="folder or Hub id of the one to start from")
    parser.add_argument(
        "--items",
        required=True,
        help="table of the new items: item_id, for neighbours also title or categories",
    )
    parser.add_argument("--output", required=True, help="folder of the grown checkpoint; the old one will do")
    parser.add_argument(
        "--start",
        choices=get_args(Start),
        default="mean",
        help="where new rows begin: at the mean of all items, or of the old items with most words in common",
    )
    parser.add_argument("--neighbours", type=int, default=NEIGHBOURS, help="how many old items these are")
    parser.add_argument("--known", help="table of the old items, for their words")
    return parser
