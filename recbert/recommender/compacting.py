"""Items leave a checkpoint for good: a new generation, in which the rest is numbered anew."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from recbert.baselines import write_links
from recbert.checkpoint import INFO_FILE, write_folder
from recbert.checkpoint.saving import GENERATION_FILE, read_recipe, write_checkpoint
from recbert.growth import keep_rows
from recbert.recommender.recommender import Recommender
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer


def compact_checkpoint(checkpoint: str | Path, target: str | Path, kept: Collection[str]) -> int:
    """Write a checkpoint with some of its items only.

    The scores of these stay as they are, up to how the hardware sums. Token ids change, so adapters and
    stored sequences of the generation before do not fit any more: `generation.safetensors` holds the old
    token id of each new one, `old_token_ids` (V,).

    Args:
        checkpoint: folder or Hub id of the old generation.
        target: folder of the new one; the old one will do.
        kept: ids of the items that stay.

    Returns:
        How many items were dropped.

    Raises:
        ValueError: no item would be left, or the checkpoint is an adapter.
    """
    old = Recommender.from_pretrained(checkpoint)
    old.refuse_adapters()
    places = np.flatnonzero([item in kept for item in old.tokenizer.item_ids])
    if not len(places):
        raise ValueError(f"none of the {old.tokenizer.num_items} items of {checkpoint} would be left")
    tokens = np.append(np.arange(FIRST_ITEM_ID), places + FIRST_ITEM_ID)
    first_new = old.tokenizer.num_items - old.info.untrained_items
    info = dataclasses.replace(
        old.info,
        popularity=np.asarray(old.info.popularity)[places],
        deny_list=[item for item in old.info.deny_list if item in kept],
        untrained_items=int((places >= first_new).sum()),
        generation=old.info.generation + 1,
    )
    keep_rows(old.model, tokens)
    tokenizer = ItemTokenizer([old.tokenizer.item_ids[place] for place in places.tolist()])
    with write_folder(target, marker=INFO_FILE) as draft:
        write_checkpoint(draft, old.model, tokenizer, info, recipe=read_recipe(checkpoint))
        save_file({"old_token_ids": torch.from_numpy(tokens)}, draft / GENERATION_FILE)
        if old.blended is not None:
            write_links(draft, old.blended.links.of_items(places))
    return old.tokenizer.num_items - len(places)
