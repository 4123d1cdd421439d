"""Launch target: `accelerate launch scripts/pretrain.py ...` is `recbert pretrain ...` on many processes."""

import sys

from recbert.commands.main import run

if __name__ == "__main__":
    sys.exit(run("pretrain", sys.argv[1:]))
