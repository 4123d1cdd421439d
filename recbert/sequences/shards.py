"""One part as a row of Arrow files that `datasets` maps into memory, written from a stream of blocks."""

import itertools
import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa


def write_shards(folder: Path, blocks: Iterable[pa.Table], shard_bytes: int) -> None:
    """Write blocks of rows so that ``datasets.load_from_disk`` reads them as one part.

    Args:
        folder: Where to; it must not exist.
        blocks: Tables of one schema, at least one; each is written before the next is asked for.
        shard_bytes: A file that has reached this size is followed by another.
    """
    folder.mkdir()
    stream = iter(blocks)
    block = next(stream)
    features = datasets.Features.from_arrow_schema(block.schema)
    drafts: list[Path] = []
    while block is not None:
        drafts.append(folder / f"{len(drafts)}.draft")
        _write_shard(drafts[-1], itertools.chain([block], stream), features.arrow_schema, shard_bytes)
        block = next(stream, None)
    files = [f"data-{place:05}-of-{len(drafts):05}.arrow" for place in range(len(drafts))]
    for draft, file in zip(drafts, files, strict=True):
        draft.rename(folder / file)
    datasets.DatasetInfo(features=features).write_to_directory(str(folder))
    state: dict[str, Any] = {
        "_data_files": [{"filename": file} for file in files],
        "_fingerprint": uuid.uuid4().hex[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")


def _write_shard(path: Path, blocks: Iterator[pa.Table], schema: pa.Schema, shard_bytes: int) -> None:
    """Write blocks until the file is large enough; the rest stays in the stream."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for block in blocks:
            writer.write_table(block.cast(schema))
            if sink.tell() >= shard_bytes:
                return
