"""Histories in one plain form that every environment reads with numpy alone."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Histories(NamedTuple):
    """All events of some users, one user after the other, in the order of time.

    Attributes:
        items: (E,) int64 item numbers, 0 to num_items - 1.
        offsets: (U + 1,) int64 the events at which users begin, and their number.
        num_items: size of the whole catalogue, also of the items that no history here holds.
    """

    items: NDArray[np.int64]
    offsets: NDArray[np.int64]
    num_items: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(U,) events of each user."""
        return np.diff(self.offsets)

    @property
    def users(self) -> NDArray[np.int64]:
        """(E,) user number of each event."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def places(self) -> NDArray[np.int64]:
        """(E,) place of each event in its user's history, from 0."""
        return np.arange(len(self.items)) - np.repeat(self.offsets[:-1], self.lengths)

    def rows(self) -> list[NDArray[np.int64]]:
        """One array of item numbers for each user."""
        return np.split(self.items, self.offsets[1:-1])

    def without_last(self, count: int) -> "Histories":
        """Leave the last events of each user out: 2 gives the training part of leave-one-out."""
        keep = self.places < np.repeat(self.lengths - count, self.lengths)
        lengths = np.maximum(self.lengths - count, 0)
        return Histories(self.items[keep], np.append(0, np.cumsum(lengths)), self.num_items)

    def take(self, users: NDArray[np.int64]) -> "Histories":
        """Keep some users; the catalogue stays."""
        rows = self.rows()
        kept = [rows[user] for user in users]
        lengths = np.array([len(row) for row in kept])
        return Histories(np.concatenate(kept), np.append(0, np.cumsum(lengths)), self.num_items)

    def save(self, path: Path) -> None:
        """Write to an .npz file."""
        np.savez(path, items=self.items, offsets=self.offsets, num_items=self.num_items)


def load_histories(path: Path) -> Histories:
    """Read what `Histories.save` wrote."""
    with np.load(path) as arrays:
        return Histories(arrays["items"], arrays["offsets"], int(arrays["num_items"]))


def read_histories(folder: Path) -> Histories:
    """Read `events.parquet` with the columns user_id, item_id and position, or else timestamp."""
    import pyarrow.parquet  # the peers' environments, which read .npz only, may lack it

    table: Any = pyarrow.parquet.read_table(folder / "events.parquet")
    order = "position" if "position" in table.column_names else "timestamp"
    table = table.sort_by([("user_id", "ascending"), (order, "ascending")])
    names, items = np.unique(table["item_id"].to_numpy(), return_inverse=True)
    _, lengths = np.unique(table["user_id"].to_numpy(), return_counts=True)
    return Histories(items.astype(np.int64), np.append(0, np.cumsum(lengths)), len(names))


def choose_users(histories: Histories, count: int, seed: int) -> Histories:
    """Draw users by seed."""
    total = len(histories.lengths)
    if not 0 < count <= total:
        raise ValueError(f"count is {count}: it must be from 1 to the {total} users")
    users = np.random.default_rng(seed).permutation(total)[:count]
    return histories.take(np.sort(users))


def draw_histories(users: int, num_items: int, lengths: tuple[int, int], seed: int) -> Histories:
    """Invent histories: lengths uniform from the first to the second, items by a Zipf-like law."""
    random = np.random.default_rng(seed)
    counts = random.integers(lengths[0], lengths[1], size=users, endpoint=True)
    # The logarithm of a rank is uniform where a rank's probability falls as 1 / rank.
    items = (num_items ** random.random(counts.sum())).astype(np.int64) - 1
    return Histories(items.clip(0, num_items - 1), np.append(0, np.cumsum(counts)), num_items)
