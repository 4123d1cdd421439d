"""One part as a row of Arrow files that `datasets` maps into memory, written from a stream of blocks."""

import itertools
import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

#: Rows that are written at once: some megabytes at usual lengths of histories.
BATCH_ROWS = 1 << 14


def write_shards(folder: Path, blocks: Iterable[pa.Table], shard_bytes: int) -> None:
    """Write blocks of rows so that ``datasets.load_from_disk`` reads them as one part.

    The same rows give the same files, however they were divided into blocks.

    Args:
        folder: Where to; it must not exist.
        blocks: Tables of one schema, at least one, which may be empty.
        shard_bytes: A file that has reached this size is followed by another.
    """
    folder.mkdir()
    stream = _regular(blocks)
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


def _regular(blocks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows in tables of `BATCH_ROWS`; the last is shorter, and an only one may be empty."""
    waiting: list[pa.Table] = []
    given = 0
    for block in blocks:
        waiting.append(block)
        while sum(map(len, waiting)) >= BATCH_ROWS:
            table = pa.concat_tables(waiting)
            yield _copy(table.slice(0, BATCH_ROWS))
            waiting, given = [table.slice(BATCH_ROWS)], given + 1
    rest = pa.concat_tables(waiting)
    if len(rest) or not given:
        yield _copy(rest)


def _copy(table: pa.Table) -> pa.Table:
    """The same rows in one chunk whose bytes do not tell what they were cut from."""
    # A lone chunk would not be copied; an empty one beside it changes that.
    return pa.concat_tables([table, table.schema.empty_table()]).combine_chunks()


def _write_shard(path: Path, blocks: Iterator[pa.Table], schema: pa.Schema, shard_bytes: int) -> None:
    """Write blocks until the file is large enough; the rest stays in the stream."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for block in blocks:
            writer.write_table(block.cast(schema))
            if sink.tell() >= shard_bytes:
                return
