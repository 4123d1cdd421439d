"""Prepared data read where it lies: on disk, on the Hub or in object storage, training rows as a stream."""

import json
import tempfile
from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
from fsspec.core import url_to_fs  # type: ignore[import-untyped]

from recbert.sequences.storage import MANIFEST_FILE, PARTS_FILE, read_manifest
from recbert.tokenizer import ItemTokenizer


def stream_prepared(
    folder: str | PathLike[str],
    parts: Collection[str] | None = None,
) -> tuple[dict[str, datasets.Dataset | datasets.IterableDataset], ItemTokenizer, dict[str, Any]]:
    """The parts, the tokenizer and the manifest that `write_prepared` wrote; "train" is a stream.

    Nothing of "train" is stored here: its rows are read anew each time through. The other parts are mapped
    from disk, after a download where the folder is remote: evaluation needs them whole.

    Args:
        folder: a path, or a URL that fsspec opens, such as ``s3://bucket/films`` (with `s3fs` installed) or
            ``hf://datasets/owner/films``.
        parts: those to read beside "train", as far as there are such; None for all.

    Raises:
        FileNotFoundError: There is no such folder, or it does not hold prepared data.
        ValueError: A damaged manifest, or a newer format than this version of recbert knows.
    """
    try:
        system, path = url_to_fs(str(folder))
    except (ImportError, ValueError) as error:
        raise ValueError(f"{folder} cannot be opened: {error}") from error
    if not system.isfile(f"{path}/{MANIFEST_FILE}"):
        raise FileNotFoundError(
            f"{folder} holds no prepared data (no {MANIFEST_FILE}): write it with `recbert prepare`"
        )
    with tempfile.TemporaryDirectory() as local:
        for name in (MANIFEST_FILE, PARTS_FILE):
            system.get_file(f"{path}/{name}", f"{local}/{name}")
        system.get(f"{path}/tokenizer", f"{local}/tokenizer", recursive=True)
        manifest = read_manifest(Path(local))
        names = json.loads(Path(local, PARTS_FILE).read_text(encoding="utf-8"))["splits"]
        tokenizer = ItemTokenizer.from_pretrained(f"{local}/tokenizer")
    files = [system.unstrip_protocol(file) for file in sorted(system.glob(f"{path}/train/*.arrow"))]
    train = datasets.load_dataset("arrow", data_files=files, split="train", streaming=True)
    names = [name for name in names if name != "train" and (parts is None or name in parts)]
    rest = {name: datasets.load_from_disk(f"{folder}/{name}") for name in names}
    return {"train": train, **rest}, tokenizer, manifest
