"""Prepared data on disk: parts, vocabulary, manifest and dataset card, written whole or not at all."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
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
from recbert.sequences.shards import write_shards
from recbert.tokenizer import UNK_ID, ItemTokenizer, escape_item

MANIFEST_FILE = "manifest.json"
PARTS_FILE = "dataset_dict.json"
FORMAT_VERSION = 1
SHARD_BYTES = 1 << 29
_ROWS = 1 << 16


def write_prepared(
    folder: str | PathLike[str],
    data: Mapping[str, datasets.Dataset | Iterable[pa.Table]],
    tokenizer: ItemTokenizer,
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """Write the parts, ``tokenizer/``, ``manifest.json`` and a dataset card (``README.md``) into a folder.

    Parts go to disk block by block, into Arrow files of about `SHARD_BYTES` each, so that none has to be in
    memory whole. The folder appears by a rename once all is written; one that was there is replaced only
    then.

    Args:
        folder: Where to; plain ``datasets.load_from_disk`` reads the parts from it.
        data: What `build_sequences` or `stream_sequences` made.
        tokenizer: The vocabulary of its token ids.
        manifest: What to know about the data, as JSON values: at least "protocol", the split in words. The
            format version, the fingerprint and the counts are added.

    Returns:
        The manifest as written.

    Raises:
        ValueError: The manifest has no protocol.
        FileExistsError: The folder holds other things than prepared data.
        OSError: The disk is full; the folder is what it was before.
    """
    if not manifest.get("protocol"):
        raise ValueError(
            "manifest has no 'protocol': say how the events were split (SplitProtocol.describe())"
        )
    with write_folder(Path(folder), marker=MANIFEST_FILE) as draft:
        for name, part in data.items():
            blocks = _blocks_of(part) if isinstance(part, datasets.Dataset) else part
            write_shards(draft / name, blocks, SHARD_BYTES)
        (draft / PARTS_FILE).write_text(json.dumps({"splits": list(data)}), encoding="utf-8")
        tokenizer.save_pretrained(draft / "tokenizer")
        written = _load_parts(draft)
        full = {
            **manifest,
            "format_version": FORMAT_VERSION,
            "fingerprint": fingerprint_data(written, tokenizer),
            "items": tokenizer.num_items,
            "counts": {name: _count(part) for name, part in written.items()},
        }
        text = json.dumps(full, indent=2, ensure_ascii=False)
        (draft / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
        columns = list(next(iter(written.values())).column_names)
        (draft / "README.md").write_text(build_dataset_card(full, columns), encoding="utf-8")
    return full


def read_prepared(
    folder: str | PathLike[str], parts: Collection[str] | None = None
) -> tuple[datasets.DatasetDict, ItemTokenizer, dict[str, Any]]:
    """The parts, the tokenizer and the manifest that `write_prepared` wrote; the parts stay on disk.

    Args:
        folder: Where `write_prepared` wrote to.
        parts: Those to read, as far as there are such; None for all. The others are not even opened.

    Raises:
        FileNotFoundError: There is no such folder, or it does not hold prepared data.
        ValueError: A damaged manifest, or a newer format than this version of recbert knows.
    """
    path = Path(folder)
    if not (path / MANIFEST_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no prepared data (no {MANIFEST_FILE}): write it with write_prepared"
        )
    manifest = read_manifest(path)
    return _load_parts(path, parts), ItemTokenizer.from_pretrained(path / "tokenizer"), manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        ValueError: It is damaged, or of a newer format than this version of recbert knows.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): prepare the data again") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, this recbert reads {FORMAT_VERSION}: update recbert"
        )
    return manifest


def _blocks_of(part: datasets.Dataset) -> Iterator[pa.Table]:
    yield part.features.arrow_schema.empty_table()
    yield from part.with_format("arrow").iter(_ROWS)


def _load_parts(folder: Path, wanted: Collection[str] | None = None) -> datasets.DatasetDict:
    """The parts, mapped into memory."""
    names = json.loads((folder / PARTS_FILE).read_text(encoding="utf-8"))["splits"]
    names = [name for name in names if wanted is None or name in wanted]
    return datasets.DatasetDict(
        {name: datasets.load_from_disk(str(folder / name), keep_in_memory=False) for name in names}
    )


def fingerprint_data(data: datasets.DatasetDict, tokenizer: ItemTokenizer) -> str:
    """The SHA-256 of all rows and of the vocabulary, as "sha256:...", however they are stored or chunked."""
    digest = hashlib.sha256("\n".join(map(escape_item, tokenizer.item_ids)).encode())
    for name, part in data.items():
        table = _table_of(part)
        for column in table.column_names:
            digest.update(f"{name}/{column}\n".encode())
            _hash_column(digest, table.column(column).chunks)
    return f"sha256:{digest.hexdigest()}"


def _table_of(part: datasets.Dataset) -> pa.Table:
    """The rows as they lie on disk or in memory, copied only where they were selected or shuffled."""
    table: pa.Table = part.with_format("arrow")[:]
    return table


def _hash_column(digest: Any, chunks: list[pa.Array]) -> None:
    """Feed a column's values, and where lists and texts end, to a hash, one chunk at a time."""
    if not chunks:
        return
    kind = chunks[0].type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        for chunk in chunks:
            digest.update(pc.list_value_length(chunk).cast(pa.int64()).to_numpy(zero_copy_only=False))
        _hash_column(digest, [chunk.flatten() for chunk in chunks])
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        for chunk in chunks:
            lengths = pc.fill_null(pc.binary_length(chunk).cast(pa.int64()), -1)
            digest.update(lengths.to_numpy(zero_copy_only=False))
        for chunk in chunks:
            digest.update(_text_bytes(chunk))
    else:
        for chunk in chunks:
            digest.update(np.ascontiguousarray(chunk.to_numpy(zero_copy_only=False)))


def _text_bytes(texts: pa.Array) -> pa.Buffer | bytes:
    """The bytes of all texts, one after the other."""
    texts = pc.fill_null(texts, "").cast(pa.large_string())
    _, ends, content = texts.buffers()
    if content is None:
        return b""
    ends = np.frombuffer(ends, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return content.slice(ends[0], ends[-1] - ends[0])


def _count(part: datasets.Dataset) -> dict[str, int]:
    """Rows, users, events, targets, and targets whose item is outside the vocabulary."""
    table = _table_of(part)
    counts = {"rows": len(part), "users": 0, "events": 0, "targets": 0, "cold_targets": 0}
    counts["users"] = pc.count_distinct(table.column(USER_ID)).as_py()
    for batch in table.to_batches():
        is_target = batch.column(IS_TARGET).flatten()
        cold = pc.and_(is_target, pc.equal(batch.column("input_ids").flatten(), UNK_ID))
        counts["events"] += len(is_target)
        counts["targets"] += pc.sum(is_target).as_py() or 0
        counts["cold_targets"] += pc.sum(cold).as_py() or 0
    return counts
