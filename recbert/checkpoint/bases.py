"""The hash by which an adapter recognises its base."""

import hashlib
import json
import logging
from pathlib import Path

from recbert.checkpoint.folder import hash_file
from recbert.checkpoint.info import find_file
from recbert.tokenizer import INDEX_FILE

logger = logging.getLogger(__name__)

_WHOLE, _PARTS = "model.safetensors", "model.safetensors.index.json"


def hash_base(folder_or_hub_id: str | Path) -> str:
    """Give the hash of a base: weights and vocabulary together.

    Args:
        folder_or_hub_id: a checkpoint with its safetensors and its vocabulary; what is missing here is
            downloaded when it is a Hub id.

    Raises:
        FileNotFoundError: there is no such checkpoint, or it has no weights or no vocabulary.
    """
    weights = find_file(folder_or_hub_id, _WHOLE)
    index = find_file(folder_or_hub_id, _PARTS) if weights is None else None
    files = [weights]
    if index is not None:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [find_file(folder_or_hub_id, name) for name in names]
    files.append(find_file(folder_or_hub_id, INDEX_FILE) or find_file(folder_or_hub_id, "tokenizer.json"))
    found = [file for file in files if file is not None]
    if len(found) < len(files):
        raise FileNotFoundError(
            f"{folder_or_hub_id} is not a checkpoint: it needs model.safetensors and tokenizer.json"
        )
    joined = " ".join(hash_file(file) for file in found)
    return f"sha256:{hashlib.sha256(joined.encode()).hexdigest()}"


def base_hash(name: str | None) -> str | None:
    """Give the hash of the base of an adapter that was trained; None where it has no name or is gone by now.

    Args:
        name: folder or Hub id of the base, if it has one.
    """
    try:
        return None if name is None else hash_base(name)
    except FileNotFoundError as error:
        logger.warning("the adapter will not know its base again: %s", error)
        return None
