"""`recbert deny`: items that a checkpoint is never to recommend, though they may stand in histories."""

import argparse
import logging

from recbert.checkpoint import read_info
from recbert.checkpoint.card import record_deny_list
from recbert.tokenizer import ItemTokenizer

logger = logging.getLogger(__name__)


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="recbert deny", description=__doc__, allow_abbrev=False)
    parser.add_argument("--checkpoint", required=True, help="its folder or an adapter's, changed in place")
    parser.add_argument("--items", nargs="+", required=True, metavar="ITEM", help="item ids")
    parser.add_argument("--allow", action="store_true", help="take them off the list again")
    options = parser.parse_args(arguments)
    denied = dict.fromkeys(read_info(options.checkpoint).deny_list)
    tokenizer = ItemTokenizer.from_pretrained(options.checkpoint)
    known = denied if options.allow else tokenizer
    if unknown := [item for item in options.items if item not in known]:
        place = "on the deny-list" if options.allow else "in the catalogue"
        raise ValueError(f"{unknown[:5]} are not {place} of {options.checkpoint}: check their ids")
    for item in options.items:
        denied.pop(item, None)
    denied |= {} if options.allow else dict.fromkeys(options.items)
    record_deny_list(options.checkpoint, list(denied))
    logger.info("%s: %s items are never recommended", options.checkpoint, f"{len(denied):,}")
    return 0
