"""Which of a run's own checkpoints can be resumed."""

import json
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Give the Trainer's own checkpoints of a run, whole or not, the earliest first.

    Args:
        output_dir: the run's folder.
    """
    numbered = {
        int(step): folder
        for folder in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (step := folder.name.rpartition("-")[2]).isdecimal()
    }
    return [numbered[step] for step in sorted(numbered)]


def is_complete(checkpoint: Path) -> bool:
    """Tell whether a checkpoint was written to its end.

    The Trainer writes `trainer_state.json` last, so a folder without a readable one was cut off by Ctrl-C or
    a full disk.

    Args:
        checkpoint: a folder of `list_checkpoints`.
    """
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def last_checkpoint(output_dir: str | Path) -> str | None:
    """Give the newest whole checkpoint of a run.

    Args:
        output_dir: the run's folder.

    Returns:
        The checkpoint folder with the highest step; None when there is none.
    """
    found = [folder for folder in list_checkpoints(output_dir) if is_complete(folder)]
    return str(found[-1]) if found else None
