"""Prepared data on disk: parts, vocabulary, manifest and dataset card, written whole or not at all."""

import hashlib
import json
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbert.checkpoint import write_folder
from recbert.events import IS_TARGET, USER_ID
from recbert.sequences.card import build_dataset_card
from recbert.tokenizer import UNK_ID, ItemTokenizer, escape_item

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1


def write_prepared(
    folder: str | PathLike[str],
    data: datasets.DatasetDict,
    tokenizer: ItemTokenizer,
    manifest: dict[str, Any],
) -> None:
    """Write the parts, ``tokenizer/``, ``manifest.json`` and a dataset card (``README.md``) into a folder.

    The folder appears by a rename once all is written; one that was there is replaced only then.

    Args:
        folder: Where to; plain ``datasets.load_from_disk`` reads the parts from it.
        data: What `build_sequences` made.
        tokenizer: The vocabulary of its token ids.
        manifest: What to know about the data, as JSON values: at least "protocol", the split in words. The
            format version, the fingerprint and the counts are added.

    Raises:
        ValueError: The manifest has no protocol.
        FileExistsError: The folder holds other things than prepared data.
    """
    if not manifest.get("protocol"):
        raise ValueError(
            "manifest has no 'protocol': say how the events were split (SplitProtocol.describe())"
        )
    full = {
        **manifest,
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint_data(data, tokenizer),
        "items": tokenizer.num_items,
        "counts": {name: _count(part) for name, part in data.items()},
    }
    with write_folder(Path(folder), marker=MANIFEST_FILE) as draft:
        data.save_to_disk(str(draft))
        tokenizer.save_pretrained(draft / "tokenizer")
        text = json.dumps(full, indent=2, ensure_ascii=False)
        (draft / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
        columns = list(next(iter(data.values())).column_names)
        (draft / "README.md").write_text(build_dataset_card(full, columns), encoding="utf-8")


def read_prepared(folder: str | PathLike[str]) -> tuple[datasets.DatasetDict, ItemTokenizer, dict[str, Any]]:
    """The parts, the tokenizer and the manifest that `write_prepared` wrote; the parts stay on disk.

    Raises:
        FileNotFoundError: There is no such folder, or it does not hold prepared data.
        ValueError: A damaged manifest, or a newer format than this version of recbert knows.
    """
    path = Path(folder) / MANIFEST_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no prepared data (no {MANIFEST_FILE}): write it with write_prepared"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): prepare the data again") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, this recbert reads {FORMAT_VERSION}: update recbert"
        )
    data = datasets.load_from_disk(str(folder))
    return data, ItemTokenizer.from_pretrained(Path(folder) / "tokenizer"), manifest


def fingerprint_data(data: datasets.DatasetDict, tokenizer: ItemTokenizer) -> str:
    """The SHA-256 of all rows and of the vocabulary, as "sha256:...", however they are stored or chunked."""
    digest = hashlib.sha256("\n".join(map(escape_item, tokenizer.item_ids)).encode())
    for name, part in data.items():
        table = part.with_format("arrow")[:]
        for column in table.column_names:
            digest.update(f"{name}/{column}\n".encode())
            _hash_column(digest, table.column(column))
    return f"sha256:{digest.hexdigest()}"


def _hash_column(digest: Any, column: pa.ChunkedArray) -> None:
    """Feed a column's values, and where lists and texts end, to a hash."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _hash_column(digest, pc.list_value_length(column).cast(pa.int64()))
        _hash_column(digest, pc.list_flatten(column))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        _hash_column(digest, pc.fill_null(pc.binary_length(column).cast(pa.int64()), -1))
        for chunk in column.chunks:
            digest.update("".join(filter(None, chunk.to_pylist())).encode())
    else:
        for chunk in column.chunks:
            digest.update(np.ascontiguousarray(chunk.to_numpy(zero_copy_only=False)).tobytes())


def _count(part: datasets.Dataset) -> dict[str, int]:
    """Rows, users, events, targets, and targets whose item is outside the vocabulary."""
    table = part.with_format("arrow")[:]
    is_target = pc.list_flatten(table.column(IS_TARGET))
    cold = pc.and_(is_target, pc.equal(pc.list_flatten(table.column("input_ids")), UNK_ID))
    return {
        "rows": len(part),
        "users": pc.count_distinct(table.column(USER_ID)).as_py(),
        "events": len(is_target),
        "targets": pc.sum(is_target).as_py() or 0,
        "cold_targets": pc.sum(cold).as_py() or 0,
    }
