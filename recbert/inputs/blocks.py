"""The rows of a prepared part as flat arrays: views of memory-mapped Arrow columns, nothing copied."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from recbert.inputs.padding import TokenIds

_ROWS_IN_BLOCK = 1 << 14


class Block(NamedTuple):
    """Consecutive rows of a part.

    Attributes:
        bounds: (n + 1,) int64, where each row begins among the tokens.
        tokens: (T,) token ids of any integer type.
        marks: bytes whose bits, the lowest first, say which tokens are targets.
        shift: the bit of the first token in `marks`, from 0 to 7.
        is_first: (n,) bool, the row is the first one of its user.
        times: (T,) epoch seconds, NaN where missing; None where nobody asked for them.
    """

    bounds: TokenIds
    tokens: NDArray[Any]
    marks: NDArray[np.uint8]
    shift: int
    is_first: NDArray[np.bool_]
    times: NDArray[np.float64] | None = None

    def targets(self, places: TokenIds) -> NDArray[np.bool_]:
        """Say which of some tokens are targets.

        Args:
            places: (T,) places among the block's tokens.
        """
        bits = places + self.shift
        found: NDArray[np.bool_] = (self.marks[bits >> 3] >> (bits & 7).astype(np.uint8) & 1).astype(np.bool_)
        return found

    def all_targets(self) -> NDArray[np.bool_]:
        """Say for every token whether it is a target, (T,)."""
        end = self.shift + len(self.tokens)
        return np.unpackbits(self.marks, count=end, bitorder="little")[self.shift :].astype(np.bool_)


def read_blocks(part: Any, *, with_times: bool = False) -> Iterator[Block]:
    """Give the rows of a part in its order.

    Args:
        part: a `datasets.Dataset`, a pyarrow Table, or dictionaries with `input_ids`, `is_target` and, for
            windows that overlap, `user_id`.
        with_times: read `timestamps` too.

    Raises:
        ValueError: a column is absent or has missing values.
    """
    table = _table(part)
    if table is None:
        yield from _plain_block(part, with_times)
        return
    for name in ("input_ids", "is_target", *(["timestamps"] if with_times else [])):
        if name not in table.column_names:
            raise ValueError(f"the training part has no column '{name}': make it with build_sequences")
    user = None
    for batch in table.to_batches(max_chunksize=_ROWS_IN_BLOCK):
        if not len(batch):
            continue
        block, user = _arrow_block(batch, user)
        yield block._replace(times=_times(batch)) if with_times else block


def read_columns(part: Any) -> Iterator[tuple[Block, Any, NDArray[np.float64]]]:
    """Give the rows of a part in its order, with the user of each row and the time of each event.

    Args:
        part: as in `read_blocks`, with `user_id` and `timestamps` too.

    Yields:
        The rows, their users (n,) as an Arrow array or a list, and the tokens' epoch seconds (T,).
    """
    table = _table(part)
    if table is None:
        rows = list(part)
        for block in _plain_block(rows, with_times=True):
            yield block, [row["user_id"] for row in rows], cast("NDArray[np.float64]", block.times)
        return
    for batch in table.to_batches(max_chunksize=_ROWS_IN_BLOCK):
        if len(batch):
            yield _arrow_block(batch, None)[0], batch.column("user_id"), _times(batch)


def _table(part: Any) -> Any:
    """Give the Arrow table of a part, None where it is a list of dictionaries."""
    if getattr(part, "_indices", None) is not None:  # a selection or another order of a `datasets.Dataset`
        part = part.flatten_indices()
    table = getattr(part, "data", part)
    return table if hasattr(table, "to_batches") else None


def merge_blocks(blocks: list[Block]) -> Block:
    """Copy blocks into one, so that a batch is gathered without a loop over blocks.

    Args:
        blocks: one or more.
    """
    sizes = np.array([len(block.tokens) for block in blocks])
    shifts = np.cumsum(sizes) - sizes
    bounds = [block.bounds[:-1] + shift for block, shift in zip(blocks, shifts, strict=True)]
    marks = [block.all_targets() for block in blocks]
    return Block(
        np.append(np.concatenate(bounds), sizes.sum()),
        np.concatenate([block.tokens for block in blocks]),
        np.packbits(np.concatenate(marks), bitorder="little"),
        0,
        np.concatenate([block.is_first for block in blocks]),
        None if blocks[0].times is None else np.concatenate([cast(Any, block.times) for block in blocks]),
    )


def _arrow_block(batch: Any, user: Any) -> tuple[Block, Any]:
    """Give the rows of one Arrow record batch, and the user of the last one."""
    ids, marks = batch.column("input_ids"), batch.column("is_target")
    bounds = ids.offsets.to_numpy().astype(np.int64)
    tokens, flags = _elements(ids), _elements(marks)
    if ids.null_count or marks.null_count or tokens.null_count or flags.null_count:
        raise ValueError("the training part has missing input_ids or is_target: make it with build_sequences")
    if len(flags) != len(tokens):
        raise ValueError("input_ids and is_target have different lengths: make them with build_sequences")
    bits = flags.buffers()[1]
    is_first = np.zeros(len(batch), dtype=np.bool_)
    if "user_id" in batch.schema.names:
        users = batch.column("user_id")
        codes = users.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        is_first[1:] = codes[1:] != codes[:-1]
        is_first[0] = users[0].as_py() != user
        user = users[-1].as_py()
    block = Block(
        bounds - bounds[0],
        tokens.to_numpy(zero_copy_only=False),
        np.frombuffer(b"" if bits is None else bits, dtype=np.uint8)[flags.offset >> 3 :],
        flags.offset & 7,
        is_first,
    )
    return block, user


def _times(batch: Any) -> NDArray[np.float64]:
    """Give the epoch seconds of the tokens of an Arrow record batch, NaN where missing, (T,)."""
    times: NDArray[np.float64] = _elements(batch.column("timestamps")).to_numpy(zero_copy_only=False)
    return times


def _elements(lists: Any) -> Any:
    """Give the elements of an Arrow list array one after another, without those that a slice left out."""
    first, last = lists.offsets[0].as_py(), lists.offsets[-1].as_py()
    return lists.values.slice(first, last - first)


def _plain_block(part: Iterable[dict[str, Any]], with_times: bool = False) -> Iterator[Block]:
    """Give the rows of dictionaries as one block."""
    rows = list(part)
    if not rows:
        return
    tokens = [np.asarray(row["input_ids"], dtype=np.int64) for row in rows]
    marks = [np.asarray(row["is_target"], dtype=np.bool_) for row in rows]
    users = [cast("str | None", row.get("user_id")) for row in rows]
    if with_times and any("timestamps" not in row for row in rows):
        raise ValueError("the training part has no column 'timestamps': make it with build_sequences")
    times = [np.asarray(row["timestamps"], dtype=np.float64) for row in rows] if with_times else None
    bounds = np.cumsum([0, *(len(row) for row in tokens)])
    is_first = [
        user is not None and user != before for user, before in zip(users, [None, *users], strict=False)
    ]
    yield Block(
        bounds.astype(np.int64),
        np.concatenate(tokens),
        np.packbits(np.concatenate(marks), bitorder="little"),
        0,
        np.array(is_first, dtype=np.bool_),
        None if times is None else np.concatenate(times),
    )
