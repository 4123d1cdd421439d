"""Which of a run's own checkpoints can be resumed."""

from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


def last_checkpoint(output_dir: str | Path) -> str | None:
    """Give the newest whole checkpoint of a run.

    The Trainer writes `trainer_state.json` last, so a folder without it was cut off by Ctrl-C or a full disk.

    Args:
        output_dir: the run's folder.

    Returns:
        The checkpoint folder with the highest step; None when there is none.
    """
    found: dict[int, Path] = {}
    for folder in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = folder.name.rpartition("-")[2]
        if step.isdecimal() and (folder / TRAINER_STATE_NAME).is_file():
            found[int(step)] = folder
    return str(found[max(found)]) if found else None
