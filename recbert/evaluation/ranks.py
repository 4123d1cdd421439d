"""The rank of each target among all items of the catalogue."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from recbert.evaluation.gathering import gather_rows, process_place
from recbert.evaluation.lists import tile_maxima, top_items
from recbert.evaluation.ranking import BlockScorer, Ranking, Scorer, SeenItems
from recbert.inputs import Moments, TargetRows, TokenIds, group_by_length
from recbert.tokenizer import FIRST_ITEM_ID

Cells = tuple[Tensor, Tensor]

_ROWS_AT_ONCE = 64
"""Rows of a score matrix that are ranked together: few enough for the processor's cache."""


def exclude_items(scores: Tensor, seen: Cells, *, keep: Tensor | None = None) -> Tensor:
    """Set the scores of some items to -inf, in a copy.

    Args:
        scores: (B, V) scores of the items.
        seen: row numbers and item indices of the cells to exclude, each (S,) int64; a cell may occur twice.
        keep: (B,) item index that stays a candidate in its row, -1 for none.

    Returns:
        (B, V) fp32.
    """
    rows, items = (part.to(scores.device) for part in seen)
    if keep is not None:
        others = keep.to(scores.device)[rows] != items
        rows, items = rows[others], items[others]
    filtered = scores.to(torch.float32, copy=True)
    filtered[rows, items] = -torch.inf
    return filtered


def rank_scores(
    scores: Tensor, targets: Tensor, seen: Cells | None = None, *, allow_repeats: bool = False
) -> Tensor:
    """Rank each row's target among all items of that row.

    `1 + items scored higher + other items scored the same / 2`: the mid-rank is what a random order of the
    ties gives on average, so constant scores earn nothing and bf16 rounding cannot inflate a metric.

    Args:
        scores: (B, V) scores of the items, higher is better; special tokens have no column.
        targets: (B,) int64 item index of each target, -1 when the catalogue does not have it.
        seen: row numbers and item indices to exclude, each (S,) int64.
        allow_repeats: the target stays a candidate although it was seen; without it, a seen target is a miss.

    Returns:
        (B,) float64 on the CPU, 1 is best; inf for a target of -1 and for one whose score is -inf.

    Raises:
        ValueError: a score is NaN, or a target is outside the catalogue.

    >>> rank_scores(torch.tensor([[0.3, 0.9, 0.3, 0.1]]), torch.tensor([2])).tolist()
    [2.5]
    """
    if seen is not None:
        scores = exclude_items(scores, seen, keep=targets if allow_repeats else None)
    scores, targets = scores.float(), targets.to(scores.device)
    if len(targets) and int(targets.max()) >= scores.shape[1]:
        raise ValueError(
            f"targets hold item {int(targets.max())} but scores have {scores.shape[1]} columns: rank with "
            "the vocabulary that the targets were encoded with"
        )
    _refuse_nan(scores.amax(1) if scores.numel() else scores)
    return _rank(scores, targets)


def _refuse_nan(values: Tensor) -> None:
    if bool(torch.isnan(values).any()):
        raise ValueError("scores hold NaN, which has no rank: the training diverged, lower the learning rate")


def _rank(scores: Tensor, targets: Tensor) -> Tensor:
    """Give the mid-ranks (B,) of targets (B,) in scores (B, V) without NaN."""
    own = scores.gather(1, targets.clamp(min=0).unsqueeze(1))  # (B, 1)
    higher, equal = _count(scores, own)
    misses = ((targets < 0) | torch.isneginf(own.squeeze(1))).cpu()
    return (1 + higher + (equal - 1) / 2).masked_fill(misses, torch.inf)


def _count(scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Count the scores (B, V) above and at each row's own one (B, 1), (B,) float64 on the CPU."""
    if scores.device.type != "cpu":
        higher, reached = (scores > own).sum(1), (scores >= own).sum(1)
        return higher.double().cpu(), (reached - higher).double().cpu()
    # NumPy compares floats to bytes, and counts them, several times faster than PyTorch does on a CPU.
    values, bounds = scores.numpy(), own.numpy()
    counts = [
        np.fromiter((np.count_nonzero(row) for row in marks), dtype=np.float64, count=len(values))
        for marks in (values > bounds, values == bounds)
    ]
    return torch.from_numpy(counts[0]), torch.from_numpy(counts[1])


@torch.no_grad()
def rank_targets(
    scorer: Scorer,
    targets: TargetRows,
    *,
    filter_seen: bool = True,
    allow_repeats: bool = False,
    k: int = 20,
    batch_size: int = 512,
    progress: bool = False,
) -> Ranking:
    """Rank the whole catalogue for every target.

    When `torch.distributed` is initialised, each process scores its share of the batches and all of them get
    the ranking of all targets. The batches are those of a single process, so the ranks are too. Every process
    calls the scorer equally often, since a sharded model waits for the others in its forward.

    Args:
        scorer: gives the scores; see `Scorer`.
        targets: what to predict.
        filter_seen: exclude every item of the whole history, not only of what fits into the model. A target
            that occurs in its own history then is a miss.
        allow_repeats: with `filter_seen`, keep the target a candidate if it was seen. The filter then knows
            more than a server would, so say so beside the number; `filter_seen=False` is the other way to
            rank repeats.
        k: length of the lists of best items that coverage and novelty are made of; 0 for none.
        batch_size: histories scored at once.
        progress: show a progress bar on the first process.

    Raises:
        ValueError: there are no targets.
    """
    if len(targets) == 0:
        raise ValueError("targets is empty: the part has no event marked is_target; choose another split")
    batches = group_by_length(targets.lengths, batch_size)
    items = item_indices(targets.token_ids)
    place, processes = process_place()
    rounds = -(-len(batches) // processes)
    results = []
    for turn in tqdm(range(rounds), desc="Ranking", disable=not progress or place > 0):
        number = turn * processes + place
        rows = batches[min(number, len(batches) - 1)]
        histories = [targets.history(row) for row in rows]
        seen = histories if filter_seen else None
        for start, scores in _blocks(scorer, histories, targets.moments(rows)):
            few = slice(start, start + len(scores))
            own = torch.from_numpy(items[rows[few]])
            found = _rank_block(scores, own, seen and seen[few], allow_repeats, k)
            # A turn beyond the last batch only keeps pace with the other processes.
            kept = slice(None) if number < len(batches) else slice(0)
            results.append([part[kept] for part in (torch.from_numpy(rows[few]), *found)])
    numbers, ranks, top = (torch.cat(parts) for parts in zip(*results, strict=True))
    most = rounds * batch_size
    seen_items: SeenItems = "filtered" if filter_seen else "kept"
    return Ranking(
        ranks=gather_rows(ranks, numbers, len(targets), most).numpy(),
        top=gather_rows(top, numbers, len(targets), most).numpy(),
        targets=items,
        users=targets.users,
        num_items=scores.shape[1],
        seen_items="filtered unless they are the target" if filter_seen and allow_repeats else seen_items,
    )


def _blocks(scorer: Scorer, histories: Sequence[TokenIds], moments: Moments) -> Iterator[tuple[int, Tensor]]:
    """Give the number of the first row of each block of scores, and the block, which may be changed."""
    if isinstance(scorer, BlockScorer):
        blocks = scorer.score_blocks(histories, moments)
    else:
        scores = scorer.scores(histories, moments)
        blocks = (part.float().clone() for part in torch.split(scores, _ROWS_AT_ONCE))
    start = 0
    for block in blocks:
        yield start, block
        start += len(block)


def _rank_block(
    scores: Tensor, targets: Tensor, seen: Sequence[TokenIds] | None, allow_repeats: bool, k: int
) -> tuple[Tensor, Tensor]:
    """Give the ranks (B,) and the best items (B, K) of scores (B, V), which are changed."""
    if seen is not None:
        hide_seen(scores, seen, keep=targets if allow_repeats else None)
    maxima = tile_maxima(scores) if scores.device.type == "cpu" else None
    _refuse_nan(scores.amax(1) if maxima is None else torch.from_numpy(maxima))
    return _rank(scores, targets.to(scores.device)), top_items(scores, k, maxima)


def hide_seen(scores: Tensor, histories: Sequence[TokenIds], *, keep: Tensor | None = None) -> None:
    """Set the scores of everything that the histories hold to -inf, in place.

    Args:
        scores: (B, V) scores of the items.
        histories: B arrays of token ids.
        keep: (B,) item index that stays in its row, -1 for none.
    """
    rows, items = seen_cells(histories, keep=keep)
    scores[rows.to(scores.device), items.to(scores.device)] = -torch.inf


def seen_cells(histories: Sequence[TokenIds], *, keep: Tensor | None = None) -> Cells:
    """Give row numbers and item indices of everything that the histories hold and the vocabulary knows.

    Args:
        histories: B arrays of token ids.
        keep: (B,) item index that is left out in its row, -1 for none.

    Returns:
        (S,) and (S,) int64.
    """
    lengths = np.fromiter(map(len, histories), dtype=np.int64, count=len(histories))
    rows = np.repeat(np.arange(len(histories)), lengths)
    items = np.concatenate(histories, dtype=np.int64) - FIRST_ITEM_ID
    wanted = items >= 0
    if keep is not None:
        wanted &= items != keep.numpy()[rows]
    return torch.from_numpy(rows[wanted]), torch.from_numpy(items[wanted])


def item_indices(token_ids: TokenIds) -> TokenIds:
    """Give the item index of each token id, -1 for those that are no item."""
    return np.where(token_ids >= FIRST_ITEM_ID, token_ids - FIRST_ITEM_ID, -1)
