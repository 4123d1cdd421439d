"""Launch target: `accelerate launch scripts/evaluate.py ...` is `recbert evaluate ...` on many processes."""

import sys

from recbert.commands.main import run

if __name__ == "__main__":
    sys.exit(run("evaluate", sys.argv[1:]))
