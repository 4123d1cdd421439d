"""Launch target: `accelerate launch scripts/finetune.py ...` is `recbert finetune ...` on many processes."""

import sys

from recbert.commands.main import run

if __name__ == "__main__":
    sys.exit(run("finetune", sys.argv[1:]))
