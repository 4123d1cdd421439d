"""Weighted links from item to item, row by row: what the item-to-item baselines count and follow."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recbert.baselines.histories import Histories

_NO_LINKS = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0))


class ItemLinks(NamedTuple):
    """A sparse matrix of item-to-item weights, row by row.

    Attributes:
        starts: (V + 1,) the links of item i are those from starts[i] to starts[i + 1].
        ends: (E,) item index that each link leads to.
        weights: (E,) its weight.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.integer[Any]]
    weights: NDArray[np.floating[Any]]

    def sources(self) -> NDArray[np.int64]:
        """Give the item index that each link leads from, (E,)."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def of_items(self, kept: NDArray[np.int64]) -> "ItemLinks":
        """Give the links among some items, which are numbered anew in their order.

        Args:
            kept: their item indices, ascending.
        """
        numbers = np.full(len(self.starts) - 1, -1)
        numbers[kept] = np.arange(len(kept))
        sources, ends = numbers[self.sources()], numbers[self.ends]
        stay = (sources >= 0) & (ends >= 0)
        starts = np.searchsorted(sources[stay], np.arange(len(kept) + 1))
        return ItemLinks(starts, ends[stay], self.weights[stay])

    def with_items(self, count: int) -> "ItemLinks":
        """Give the same links of a catalogue with new items at its end, which have none."""
        return self._replace(starts=np.append(self.starts, np.full(count, self.starts[-1])))


class Query(NamedTuple):
    """Where the links of one history start.

    Attributes:
        items: (M,) item indices.
        weights: (M,) how much the links of each count.
    """

    items: NDArray[np.int64]
    weights: NDArray[np.float64]


class SpreadLinks(NamedTuple):
    """The links that a batch of queries follows, one entry for each link.

    Attributes:
        rows: (M,) number of the query.
        ends: (M,) item index that the link leads to; one that several links lead to occurs several times.
        weights: (M,) weight of the link times that of its start.
    """

    rows: NDArray[np.int64]
    ends: NDArray[np.integer[Any]]
    weights: NDArray[np.float64]


def build_links(
    sources: NDArray[np.int64], ends: NDArray[np.int64], weights: NDArray[np.float64], num_items: int
) -> ItemLinks:
    """Collect links; the weights of equal ones are added up.

    Args:
        sources: (M,) item index that each link leads from.
        ends: (M,) item index that it leads to.
        weights: (M,) its weight.
        num_items: size of the catalogue, V.
    """
    cells, place = np.unique(sources * num_items + ends, return_inverse=True)
    summed = np.bincount(place, weights=weights, minlength=len(cells)).astype(np.float64)
    starts = np.searchsorted(cells, np.arange(num_items + 1) * num_items)
    return ItemLinks(starts, cells % num_items, summed)


def count_successions(histories: Histories, num_items: int, window: int) -> ItemLinks:
    """Link every item to those that follow it in a history, `1 / distance` for each time.

    Args:
        histories: training events.
        num_items: size of the catalogue.
        window: largest distance that counts; 1 is the next event.
    """
    users, items = histories.users, histories.items
    parts = [build_links(*_NO_LINKS, num_items)]
    for distance in range(1, min(window, len(items) - 1) + 1):
        same_user = users[distance:] == users[:-distance]
        sources, ends = items[:-distance][same_user], items[distance:][same_user]
        parts.append(build_links(sources, ends, np.full(len(sources), 1 / distance), num_items))
    return add_links(parts)


def add_links(parts: Sequence[ItemLinks]) -> ItemLinks:
    """Add up links of the same catalogue.

    Args:
        parts: at least one set of links.
    """
    num_items = len(parts[0].starts) - 1
    return build_links(
        np.concatenate([part.sources() for part in parts]),
        np.concatenate([part.ends for part in parts]),
        np.concatenate([part.weights for part in parts]),
        num_items,
    )


def limit_links(links: ItemLinks, most: int) -> ItemLinks:
    """Keep the strongest links of each item.

    Links that tie across the limit all go: which of them stay would depend on the order of the items.

    Args:
        links: what was counted.
        most: how many an item may keep, at least 1.
    """
    sources = links.sources()
    order = np.lexsort((-links.weights, sources))  # the strongest first, item by item
    first_left_out = links.starts[:-1] + most
    crowded = first_left_out < links.starts[1:]
    bounds = np.full(len(crowded), -np.inf)
    bounds[crowded] = links.weights[order[first_left_out[crowded]]]
    kept = links.weights > bounds[sources]
    starts = np.append(0, np.cumsum(kept))[links.starts]
    return ItemLinks(starts, links.ends[kept], links.weights[kept])


def spread_links(links: ItemLinks, queries: Sequence[Query]) -> SpreadLinks:
    """List the links that lead away from queries.

    Args:
        links: what was counted.
        queries: B starting points.
    """
    items = np.concatenate([query.items for query in queries])
    rows = np.repeat(np.arange(len(queries)), [len(query.items) for query in queries])
    first, counts = links.starts[items], links.starts[items + 1] - links.starts[items]
    before = np.cumsum(counts) - counts
    places = np.repeat(first - before, counts) + np.arange(counts.sum())
    weights = np.concatenate([query.weights for query in queries])
    return SpreadLinks(
        np.repeat(rows, counts), links.ends[places], links.weights[places] * np.repeat(weights, counts)
    )


def follow_links(links: ItemLinks, queries: Sequence[Query]) -> torch.Tensor:
    """Score every item by the links that lead to it from each query.

    Sums in double precision, so that scores that are equal on paper stay equal and share their rank.

    Args:
        links: what was counted.
        queries: B starting points.

    Returns:
        (B, V) fp32.
    """
    num_items = len(links.starts) - 1
    scores = np.zeros((len(queries), num_items), dtype=np.float32)
    for row, query in enumerate(queries):
        _, ends, weights = spread_links(links, [query])
        scores[row] = np.bincount(ends, weights=weights, minlength=num_items)
    return torch.from_numpy(scores)
