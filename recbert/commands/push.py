"""`recbert push`: publish the files of a checkpoint on the Hub, and nothing else of its folder."""

import argparse
import sys

from recbert.hub import push_to_hub


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="recbert push", description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", help="folder that recbert saved")
    parser.add_argument("repository", help="OWNER/NAME on the Hub")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    options = parser.parse_args(arguments)
    sys.stdout.write(push_to_hub(options.checkpoint, options.repository, private=options.private) + "\n")
    return 0
