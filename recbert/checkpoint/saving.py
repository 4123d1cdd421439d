"""A checkpoint's files, written into a folder."""

from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from recbert.checkpoint.card import build_model_card
from recbert.checkpoint.folder import write_text
from recbert.checkpoint.info import CheckpointInfo, find_file, write_info
from recbert.tokenizer import ItemTokenizer

RECIPE_FILE = "recipe.yaml"

GENERATION_FILE = "generation.safetensors"
"""Tells a catalogue that was compacted which token each item was in the generation before."""


def read_recipe(folder_or_hub_id: str | Path | None) -> str:
    """Give the recipe of a checkpoint as YAML; empty where it has none.

    Args:
        folder_or_hub_id: the checkpoint, if there is one.
    """
    path = None if folder_or_hub_id is None else find_file(folder_or_hub_id, RECIPE_FILE)
    return "" if path is None else path.read_text(encoding="utf-8")


def write_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    info: CheckpointInfo,
    *,
    recipe: str = "",
    base: str | None = None,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write weights, vocabulary, `recbert.json`, recipe and card.

    Args:
        folder: an empty folder, such as the draft of `write_folder`.
        model: a stock model, or an adapted one, of which the adapter is written.
        tokenizer: its vocabulary.
        info: the content of `recbert.json`.
        recipe: the resolved recipe as YAML; empty when no recipe made the checkpoint.
        base: folder or Hub id of the base of an adapter.
        weights: tensors to write instead of the model's own.
    """
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
    write_info(folder, info)
    if recipe:
        write_text(folder / RECIPE_FILE, recipe)
    write_text(folder / "README.md", build_model_card(info, model.config.to_dict(), recipe or None, base))
