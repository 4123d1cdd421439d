"""The rank of each target among all items of the catalogue."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from recbert.evaluation.gathering import gather_rows, process_place
from recbert.evaluation.ranking import Ranking, Scorer, SeenItems
from recbert.inputs import Target, TargetRows, group_by_length, known_items
from recbert.tokenizer import FIRST_ITEM_ID

Cells = tuple[Tensor, Tensor]


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
    if bool(torch.isnan(scores).any()):
        raise ValueError("scores hold NaN, which has no rank: the training diverged, lower the learning rate")
    own = scores.gather(1, targets.clamp(min=0).unsqueeze(1))  # (B, 1)
    higher = (scores > own).sum(1).cpu().double()
    equal = (scores == own).sum(1).cpu().double() - 1
    misses = (targets < 0) | torch.isneginf(own.squeeze(1))
    return (1 + higher + equal / 2).masked_fill(misses.cpu(), torch.inf)


def top_items(scores: Tensor, k: int) -> Tensor:
    """List the best items of each row; of items with equal scores the one with the lower index comes first.

    Args:
        scores: (B, V) scores of the items, -inf for those that may not be recommended.
        k: items wanted.

    Returns:
        (B, min(k, V)) int32 item indices on the CPU, best first, -1 where no candidate was left.
    """
    k = min(k, scores.shape[1])
    if k == 0:
        return torch.empty((len(scores), 0), dtype=torch.int32)
    values, items = scores.float().topk(k, dim=1)
    bound = values[:, -1:]
    # topk picks arbitrarily among items that tie with the last one, so rows with such ties are picked again.
    unsure = ((scores >= bound).sum(1) > k) & ~torch.isneginf(bound.squeeze(1))
    if bool(unsure.any()):
        items[unsure] = _first_of_ties(scores[unsure], bound[unsure], k)
        values = scores.gather(1, items)
    items, order = torch.sort(items, dim=1)
    values, order = torch.sort(values.gather(1, order), dim=1, descending=True, stable=True)
    return items.gather(1, order).masked_fill(torch.isneginf(values), -1).int().cpu()


def _first_of_ties(scores: Tensor, bound: Tensor, k: int) -> Tensor:
    """Pick the k items of each row at or above its bound, those at the bound by item index."""
    higher = scores > bound
    tied = scores == bound
    wanted = k - higher.sum(1, keepdim=True)
    picked = higher | (tied & (tied.cumsum(1) <= wanted))
    return picked.nonzero()[:, 1].view(-1, k)


@torch.no_grad()
def rank_targets(
    scorer: Scorer,
    targets: TargetRows,
    *,
    filter_seen: bool = True,
    allow_repeats: bool = False,
    k: int = 100,
    batch_size: int = 256,
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
    place, processes = process_place()
    rounds = -(-len(batches) // processes)
    results = []
    for turn in tqdm(range(rounds), desc="Ranking", disable=not progress or place > 0):
        number = turn * processes + place
        rows = batches[min(number, len(batches) - 1)]
        batch = [targets[int(row)] for row in rows]
        scores = scorer.scores([target.history for target in batch])
        # A turn beyond the last batch only keeps pace with the other processes.
        kept = slice(None) if number < len(batches) else slice(0)
        found = rank_batch(scores, batch, filter_seen, allow_repeats, k)
        results.append([part[kept] for part in (torch.from_numpy(rows), *found)])
    numbers, ranks, top = (torch.cat(parts) for parts in zip(*results, strict=True))
    most = rounds * batch_size
    seen_items: SeenItems = "filtered" if filter_seen else "kept"
    return Ranking(
        ranks=gather_rows(ranks, numbers, len(targets), most).numpy(),
        top=gather_rows(top, numbers, len(targets), most).numpy(),
        targets=item_indices(targets),
        users=[target.user for target in targets],
        num_items=scores.shape[1],
        seen_items="filtered unless they are the target" if filter_seen and allow_repeats else seen_items,
    )


def rank_batch(
    scores: Tensor, batch: Sequence[Target], filter_seen: bool, allow_repeats: bool, k: int
) -> tuple[Tensor, Tensor]:
    """Give the ranks (B,) and the best items (B, K) of one batch of scores (B, V)."""
    targets = torch.from_numpy(item_indices(batch))
    if filter_seen:
        seen = seen_cells([target.history for target in batch])
        scores = exclude_items(scores, seen, keep=targets if allow_repeats else None)
    return rank_scores(scores, targets), top_items(scores, k)


def seen_cells(histories: Sequence[NDArray[np.int64]]) -> Cells:
    """Give row numbers and item indices of everything that the histories hold and the vocabulary knows."""
    items = [known_items(history) - FIRST_ITEM_ID for history in histories]
    rows = np.repeat(np.arange(len(items)), [len(row) for row in items])
    return torch.from_numpy(rows), torch.from_numpy(np.concatenate(items))


def item_indices(targets: TargetRows | Sequence[Target]) -> NDArray[np.int64]:
    """Give the item index of each target, -1 for those that the vocabulary does not have."""
    tokens = np.fromiter((target.token_id for target in targets), dtype=np.int64, count=len(targets))
    return np.where(tokens >= FIRST_ITEM_ID, tokens - FIRST_ITEM_ID, -1)
