"""Links on disk: the rules that a checkpoint brings along."""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recbert.baselines.links import ItemLinks
from recbert.checkpoint import RULES_FILE, find_file, write_file


def write_links(folder: str | Path, links: ItemLinks) -> None:
    """Write `rules.safetensors`, whole or not at all.

    Compressed sparse rows: `starts` (V + 1,) int64, `ends` (E,) int32 and `weights` (E,) float32.

    Args:
        folder: the checkpoint folder.
        links: what to write.
    """
    tensors = {
        "starts": torch.from_numpy(links.starts.astype(np.int64)),
        "ends": torch.from_numpy(links.ends.astype(np.int32)),
        "weights": torch.from_numpy(links.weights.astype(np.float32)),
    }
    with write_file(Path(folder) / RULES_FILE) as draft:
        save_file(tensors, draft)


def read_links(folder_or_hub_id: str | Path, num_items: int) -> ItemLinks:
    """Read the `rules.safetensors` of a checkpoint.

    Args:
        folder_or_hub_id: a local folder or a Hub id.
        num_items: size of the catalogue.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another catalogue.
    """
    path = find_file(folder_or_hub_id, RULES_FILE)
    if path is None:
        raise FileNotFoundError(
            f"{folder_or_hub_id} has no {RULES_FILE} although its recbert.json has a blend: copy the "
            "checkpoint again, or run `recbert blend`"
        )
    try:
        stored = load_file(path)
        starts, ends, weights = (stored[name].numpy() for name in ("starts", "ends", "weights"))
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): copy the checkpoint again") from error
    if len(starts) != num_items + 1 or not len(ends) == len(weights) == starts[-1]:
        raise ValueError(
            f"{path} holds rules of {len(starts) - 1} items and the tokenizer has {num_items}: the files are "
            "of different checkpoints, run `recbert blend` again"
        )
    return ItemLinks(starts, ends, weights)
