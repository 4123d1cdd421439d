"""A memory-mapped table of item ids for catalogues past two million items.

A dictionary of 10 M strings takes 2.5 GB and half a minute in every process that loads it. Here the ids stay
in one safetensors file that is mapped, not read, and that all processes of a machine share::

    text    (bytes,) uint8   the ids in UTF-8, one after the other, in token order
    ends    (N,) int64       where each id ends in `text`
    hashes  (N,) int64       the ids' 64-bit FNV-1a hashes, ascending
    places  (N,) int32       the item index that each hash belongs to

An id is found by its hash with a binary search and then compared byte by byte, so that equal hashes cannot be
mistaken for equal ids.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

INDEX_FILE = "items.safetensors"

Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]

_BLOCK = 1 << 16
_HASH_BLOCK = 1 << 20
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


class ItemIndex(Sequence[str]):
    """Item ids in token order that are also found by id; it answers like a list and a dictionary at once.

    >>> index = ItemIndex.build(["b", "a"])
    >>> list(index), index[1], index.find(["a", "c", "b"]).tolist()
    (['b', 'a'], 'a', [1, -1, 0])
    """

    def __init__(self, text: Bytes, ends: Integers, hashes: Integers, places: NDArray[np.int32]) -> None:
        """Wrap the four arrays that the module's head describes."""
        self._text, self._ends, self._hashes, self._places = text, ends, hashes, places

    @classmethod
    def build(cls, item_ids: Sequence[str]) -> "ItemIndex":
        """Index distinct, non-empty ids; the i-th of them is item i."""
        text, ends = _flatten(item_ids)
        hashes = _hash(text, ends)
        order = np.argsort(hashes, kind="stable")
        return cls(text, ends, hashes[order], order.astype(np.int32))

    @classmethod
    def load(cls, path: str | Path) -> "ItemIndex":
        """Map the file that `save` wrote; its pages are read when they are needed.

        Raises:
            ValueError: It is no item index, or damaged.
        """
        try:
            with safe_open(path, framework="pt") as stored:
                arrays = [stored.get_tensor(name).numpy() for name in ("text", "ends", "hashes", "places")]
        except SafetensorError as error:
            raise ValueError(f"{path} is no item index ({error}): copy the checkpoint again") from error
        text, ends, hashes, places = arrays
        if not len(ends) == len(hashes) == len(places) > 0 or ends[-1] != len(text):
            raise ValueError(f"{path} is damaged, its parts do not fit together: copy the checkpoint again")
        return cls(text, ends, hashes, places)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, which appears whole or not at all."""
        path = Path(path)
        draft = path.with_name(f".{path.name}.draft")
        names = {"text": self._text, "ends": self._ends, "hashes": self._hashes, "places": self._places}
        try:
            save_file({name: torch.from_numpy(array) for name, array in names.items()}, draft)
            draft.replace(path)  # an index that is mapped at this moment keeps its old file
        finally:
            draft.unlink(missing_ok=True)

    def find(self, item_ids: Sequence[str]) -> Integers:
        """The index of each item, (N,); -1 for those that are not in it."""
        text, ends = _flatten(item_ids)
        hashes = _hash(text, ends)
        starts, found = _starts(ends), np.full(len(ends), -1, dtype=np.int64)
        open_rows = np.argsort(hashes)  # neighbours in the table one after the other: ten times faster
        position = np.empty_like(hashes)
        position[open_rows] = np.searchsorted(self._hashes, hashes[open_rows])
        while True:  # one round, but for ids that share a hash
            near = np.minimum(position[open_rows], len(self._hashes) - 1)
            open_rows = open_rows[(position[open_rows] == near) & (self._hashes[near] == hashes[open_rows])]
            if len(open_rows) == 0:
                return found
            places = self._places[position[open_rows]].astype(np.int64)
            bounds = self._bounds(places)
            same = _equal(text, (starts[open_rows], ends[open_rows]), self._text, bounds)
            found[open_rows[same]] = places[same]
            open_rows = open_rows[~same]
            position[open_rows] += 1

    def __len__(self) -> int:
        """The number of items."""
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        """The id at a place, or those of a slice as a list."""
        if isinstance(place, slice):
            first, last, step = place.indices(len(self))
            return self._decode(first, last) if step == 1 else [self[i] for i in range(first, last, step)]
        number = place + len(self) if place < 0 else place
        if not 0 <= number < len(self):
            raise IndexError(f"item {place} of {len(self)}")
        start, end = self._bounds(np.array([number]))
        return self._text[start[0] : end[0]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        """The ids in token order, decoded block by block."""
        for first in range(0, len(self), _BLOCK):
            yield from self._decode(first, min(first + _BLOCK, len(self)))

    def __contains__(self, item_id: object) -> bool:
        """Whether there is such an item."""
        return isinstance(item_id, str) and self.find([item_id])[0] >= 0

    def __eq__(self, other: object) -> bool:
        """Whether the other sequence, an index or a list, holds the same ids in the same order."""
        if isinstance(other, ItemIndex):
            same_ends = bool(np.array_equal(self._ends, other._ends))
            return same_ends and bool(np.array_equal(self._text, other._text))
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list has none

    def _decode(self, first: int, last: int) -> list[str]:
        """The ids of the items `first` to `last - 1`."""
        if first >= last:
            return []
        starts, ends = self._bounds(np.arange(first, last))
        text = self._text[starts[0] : ends[-1]].tobytes()
        bounds = zip((starts - starts[0]).tolist(), (ends - starts[0]).tolist(), strict=True)
        return [text[start:end].decode() for start, end in bounds]

    def _bounds(self, places: Integers) -> tuple[Integers, Integers]:
        """Where the ids at some places start and end in the text."""
        return np.where(places > 0, self._ends[places - 1], 0), self._ends[places]


def _flatten(item_ids: Sequence[str]) -> tuple[Bytes, Integers]:
    """The ids as UTF-8 bytes, one after the other, and where each ends."""
    joined = "".join(item_ids)
    if joined.isascii():
        text, lengths = joined.encode(), map(len, item_ids)
    else:  # a lone surrogate is in no index, but may be asked for
        parts = [item_id.encode("utf-8", "surrogatepass") for item_id in item_ids]
        text, lengths = b"".join(parts), map(len, parts)
    ends = np.cumsum(np.fromiter(lengths, dtype=np.int64, count=len(item_ids)))
    return np.frombuffer(bytearray(text), dtype=np.uint8), ends


def _starts(ends: Integers) -> Integers:
    """Where texts that end at `ends` begin."""
    return np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]]) if len(ends) else ends


def _hash(text: Bytes, ends: Integers) -> Integers:
    """The 64-bit FNV-1a hash of each id, as int64: all ids at once, byte after byte."""
    starts = _starts(ends)
    hashes = np.full(len(ends), _FNV_OFFSET, dtype=np.uint64)
    for first in range(0, len(ends), _HASH_BLOCK):
        block = slice(first, first + _HASH_BLOCK)
        lengths = ends[block] - starts[block]
        longest_first = np.argsort(-lengths, kind="stable")
        begin, state = starts[block][longest_first], hashes[block][longest_first]
        reach = np.searchsorted(-lengths[longest_first], -np.arange(lengths.max()), side="left")
        for place, count in enumerate(reach.tolist()):  # the first `count` ids have a byte at `place`
            state[:count] = (state[:count] ^ text[begin[:count] + place]) * _FNV_PRIME
        hashes[first + longest_first] = state
    return hashes.view(np.int64)


def _equal(
    text: Bytes, bounds: tuple[Integers, Integers], other: Bytes, others: tuple[Integers, Integers]
) -> NDArray[np.bool_]:
    """Whether the pieces of two texts between pairs of bounds are the same, pair by pair."""
    (starts, ends), (other_starts, other_ends) = bounds, others
    lengths = ends - starts
    same: NDArray[np.bool_] = (lengths == other_ends - other_starts) & (lengths > 0)
    starts, other_starts, lengths = starts[same], other_starts[same], lengths[same]
    if len(lengths):
        first = _starts(np.cumsum(lengths))  # of each pair among all bytes that are compared
        steps = np.arange(lengths.sum()) - np.repeat(first, lengths)
        equal = text[np.repeat(starts, lengths) + steps] == other[np.repeat(other_starts, lengths) + steps]
        same[same] = np.logical_and.reduceat(equal, first)
    return same
