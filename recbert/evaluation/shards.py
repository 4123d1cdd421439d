"""Ranks over an item table that is split over processes: each scores its own rows, a block at a time."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from recbert.evaluation.lists import top_items
from recbert.evaluation.ranking import Ranking, SeenItems
from recbert.evaluation.ranks import Cells, item_indices, rank_scores, seen_cells
from recbert.inputs import Moments, TargetRows, TokenIds, count_known, group_by_length
from recbert.sharding import group_of, own_slice, owned_rows
from recbert.tokenizer import FIRST_ITEM_ID

_BLOCK_ROWS = 4096
"""Rows scored at once: blocks of the shape and at the places of `recbert.backends`, for the same scores."""


class VectorScorer(Protocol):
    """Gives hidden states, as `recbert.backends.TorchScorer` does."""

    def vectors(self, histories: Sequence[TokenIds], moments: Moments | None = None, /) -> Tensor:
        """Give the hidden states (B, D) of histories with a known item."""
        ...


class ItemSlice(NamedTuple):
    """The items that this process scores.

    Attributes:
        weight: (R, D) their rows.
        bias: (R,) or None.
        items: their item indices, a range of length R.
        num_items: items of all processes.
        group: these processes.
    """

    weight: Tensor
    bias: Tensor | None
    items: range
    num_items: int
    group: distributed.ProcessGroup


def slice_items(weight: DTensor, bias: DTensor | None, num_items: int) -> ItemSlice:
    """Give the items that this process holds, without the special tokens.

    Args:
        weight: (V, D) with placement `Shard(0)`.
        bias: (V,) likewise, or None.
        num_items: items in the vocabulary.
    """
    own = owned_rows(len(weight), weight.device_mesh)
    tokens = range(
        max(own.start, FIRST_ITEM_ID), max(FIRST_ITEM_ID, min(own.stop, FIRST_ITEM_ID + num_items))
    )
    rows = slice(tokens.start - own.start, max(tokens.start, tokens.stop) - own.start)
    items = range(tokens.start - FIRST_ITEM_ID, max(tokens.start, tokens.stop) - FIRST_ITEM_ID)
    own_bias = None if bias is None else own_slice(bias)[rows]
    return ItemSlice(own_slice(weight)[rows], own_bias, items, num_items, group_of(weight))


@torch.no_grad()
def rank_over_shards(
    scorer: VectorScorer,
    table: ItemSlice,
    targets: TargetRows,
    popularity: TokenIds,
    *,
    filter_seen: bool = True,
    k: int = 20,
    batch_size: int = 256,
) -> Ranking:
    """Rank the whole catalogue for every target; the result is that of `rank_targets` on the whole table.

    All processes take the same batches and share out the items, where `rank_targets` shares out the batches.

    Args:
        scorer: gives hidden states.
        table: the items of this process.
        targets: what to predict.
        popularity: (num_items,) training events of each item, by which histories without a known one are
            answered.
        filter_seen: exclude every item of the whole history.
        k: length of the lists of best items.
        batch_size: histories scored at once.

    Raises:
        ValueError: there are no targets, or a score is NaN.
    """
    if len(targets) == 0:
        raise ValueError("targets is empty: the part has no event marked is_target; choose another split")
    items = item_indices(targets.token_ids)
    ranks = torch.empty(len(targets), dtype=torch.float64)
    top = torch.empty((len(targets), min(k, table.num_items)), dtype=torch.int32)
    for rows in group_by_length(targets.lengths, batch_size):
        known = count_known([targets.history(row) for row in rows]) > 0
        some, others = rows[known], rows[~known]
        if len(some):
            histories, own = [targets.history(row) for row in some], torch.from_numpy(items[some])
            vectors = scorer.vectors(histories, targets.moments(some))
            ranks[some], top[some] = _rank_known(vectors, table, histories, own, filter_seen, k)
        if len(others):
            ranks[others], top[others] = _rank_unknown(popularity, torch.from_numpy(items[others]), k)
    seen_items: SeenItems = "filtered" if filter_seen else "kept"
    return Ranking(ranks.numpy(), top.numpy(), items, targets.users, table.num_items, seen_items)


def best_items(vectors: Tensor, table: ItemSlice, k: int, seen: Cells | None = None) -> tuple[Tensor, Tensor]:
    """List the best items of all processes; of items with equal scores the one with the lower index first.

    Args:
        vectors: (B, D) hidden states, the same on every process.
        table: the items of this process.
        k: items wanted.
        seen: row numbers and item indices of the cells to leave out, each (S,).

    Returns:
        scores: (B, K) float32, the highest first.
        items: (B, K) int64 item indices, -1 where no candidate was left.
    """
    best = _empty_lists(vectors, k)
    for start, scores in _blocks(vectors, table, seen):
        best = _merge(best, scores, start, k)
    return _merge_processes(best, table.group, k)


def _rank_unknown(popularity: TokenIds, targets: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Give what `_rank_known` gives, of histories without a known item: there is no seen one to filter."""
    scores = torch.from_numpy(popularity).float().unsqueeze(0)  # (1, V_items)
    ranks = torch.cat([rank_scores(scores, targets[i : i + 1]) for i in range(len(targets))])
    return ranks, top_items(scores, k).expand(len(targets), -1)


def _rank_known(
    vectors: Tensor,
    table: ItemSlice,
    histories: Sequence[TokenIds],
    targets: Tensor,
    filter_seen: bool,
    k: int,
) -> tuple[Tensor, Tensor]:
    """Give the ranks (B,) and best items (B, K) of targets (B,) whose histories have a known item."""
    targets = targets.to(vectors.device)
    seen = seen_cells(histories) if filter_seen else None
    own = vectors.new_full((len(targets),), -torch.inf)  # the targets' scores
    for start, scores in _blocks(vectors, table, seen, only=targets):
        here = ((targets >= start) & (targets < start + scores.shape[1])).nonzero().squeeze(1)
        own[here] = scores[here, targets[here] - start]
    distributed.all_reduce(own, distributed.ReduceOp.MAX, group=table.group)
    counts = torch.zeros((3, len(targets)), dtype=torch.int64, device=vectors.device)
    best = _empty_lists(vectors, k)
    for start, scores in _blocks(vectors, table, seen):
        counts[0] += (scores > own[:, None]).sum(1)
        counts[1] += (scores >= own[:, None]).sum(1)
        counts[2] += scores.amax(1).isnan()
        best = _merge(best, scores, start, k)
    distributed.all_reduce(counts, group=table.group)
    if bool(counts[2].any()):
        raise ValueError("scores hold NaN, which has no rank: the training diverged, lower the learning rate")
    higher, equal = counts[0].double(), (counts[1] - counts[0] - 1).double()
    misses = (targets < 0) | torch.isneginf(own)
    _, items = _merge_processes(best, table.group, min(k, table.num_items))
    return (1 + higher + equal / 2).masked_fill(misses, torch.inf).cpu(), items.int().cpu()


def _blocks(
    vectors: Tensor, table: ItemSlice, seen: Cells | None, only: Tensor | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Score the items of this process block by block: the first item's index, (B, n) with -inf where seen.

    Blocks stand at the same places of the whole table for any number of processes; what another process has
    of a block is zero here. With `only`, blocks without any of these items are passed over.
    """
    items = table.items
    wanted = None if only is None else set((only // _BLOCK_ROWS).tolist())
    rows, columns = (part.to(vectors.device) for part in seen) if seen is not None else (None, None)
    for block in range(items.start // _BLOCK_ROWS, -(-items.stop // _BLOCK_ROWS) if len(items) else 0):
        if wanted is not None and block not in wanted:
            continue
        first = block * _BLOCK_ROWS
        start, stop = max(first, items.start), min(first + _BLOCK_ROWS, items.stop)
        part = slice(start - items.start, stop - items.start)
        filled = table.weight[part].to(vectors.dtype)
        if len(filled) < _BLOCK_ROWS:
            margin = (0, 0, start - first, first + _BLOCK_ROWS - stop)
            filled = torch.nn.functional.pad(filled, margin)
        scores = (vectors @ filled.T)[:, start - first : stop - first]
        if table.bias is not None:
            scores = scores + table.bias[part].to(vectors.dtype)
        if rows is not None and columns is not None:
            inside = (columns >= start) & (columns < stop)
            scores[rows[inside], columns[inside] - start] = -torch.inf
        yield start, scores


def _empty_lists(vectors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Give lists of best items in which everything comes before what is there."""
    scores = vectors.new_full((len(vectors), k), -torch.inf)
    return scores, torch.full_like(scores, -1, dtype=torch.int64)


def _merge(best: tuple[Tensor, Tensor], scores: Tensor, start: int, k: int) -> tuple[Tensor, Tensor]:
    """Put the scores (B, n) of the items from `start` on into lists of earlier items."""
    values, items = best
    if k == 0:
        return best
    rows = (scores.amax(1) > values[:, -1]).nonzero().squeeze(1)  # an equal score of a later item is too late
    if len(rows):
        found = top_items(scores[rows], k).to(values.device, torch.int64)  # (R, min(k, n))
        found_values = scores[rows].gather(1, found.clamp(min=0)).masked_fill(found < 0, -torch.inf)
        values, items = values.clone(), items.clone()
        both = torch.cat([values[rows], found_values], 1), torch.cat([items[rows], found + start], 1)
        values[rows], items[rows] = _first(*both, k)
    return values, items


def _merge_processes(
    best: tuple[Tensor, Tensor], group: distributed.ProcessGroup, k: int
) -> tuple[Tensor, Tensor]:
    """Put the lists of all processes together; earlier processes have the lower items."""
    values, items = (_beside(part, group) for part in best)
    values, items = _first(values, items, k)
    return values, items.masked_fill(torch.isneginf(values), -1)


def _beside(part: Tensor, group: distributed.ProcessGroup) -> Tensor:
    """Put what all processes have side by side, (B, P k)."""
    parts = [torch.empty_like(part) for _ in range(group.size())]
    distributed.all_gather(parts, part.contiguous(), group=group)
    return torch.cat(parts, 1)


def _first(values: Tensor, items: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sort lists (B, n) by score, equal ones in the order they are in, and cut them after k."""
    values, order = torch.sort(values, dim=1, descending=True, stable=True)
    return values[:, :k], items.gather(1, order)[:, :k]
