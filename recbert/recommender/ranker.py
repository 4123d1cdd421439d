"""The best items for requests in tokens, by the scores of all items or by approximate search."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbert.backends import ItemIndex, TorchScorer
from recbert.evaluation import hide_seen, top_items
from recbert.inputs import Moments, TokenIds, count_known
from recbert.recommender.blending import BlendedScorer
from recbert.tokenizer import FIRST_ITEM_ID

Recommendation = tuple[str, float]


class Request(NamedTuple):
    """What is asked.

    Attributes:
        tokens: B histories as token ids.
        moments: their times, for a checkpoint that knows of time.
        k: how many items.
        barred: (V_items,) bool, the items that may not be recommended; None where all of them may be.
        hides_seen: whether the items of the history are left out.
    """

    tokens: Sequence[TokenIds]
    moments: Moments | None
    k: int
    barred: Tensor | None
    hides_seen: bool


class Ranker:
    """The best items of one catalogue.

    Args:
        scorer: scores of all items.
        vectors: of histories, for approximate search; the model's own.
        item_ids: the V_items items, in the order of their tokens.

    Attributes:
        index: for approximate search; None scores every item.
    """

    def __init__(
        self, scorer: TorchScorer | BlendedScorer, vectors: TorchScorer, item_ids: Sequence[str]
    ) -> None:
        self.scorer, self.vectors, self.item_ids = scorer, vectors, item_ids
        self.index: ItemIndex | None = None

    def rank(self, request: Request) -> list[list[Recommendation]]:
        """Answer by scoring every item.

        Args:
            request: what is asked.

        Returns:
            (item id, score) pairs for each history, the best first.
        """
        tokens, moments, k, barred, hides_seen = request
        answers: list[list[Recommendation]] = []
        for scores in self.scorer.score_blocks(tokens, moments):  # (b, V_items)
            if barred is not None:
                scores[:, barred.to(scores.device)] = -torch.inf
            if hides_seen:
                hide_seen(scores, tokens[len(answers) : len(answers) + len(scores)])
            answers.extend(self._best(scores, k))
        return answers

    def search(self, request: Request) -> list[list[Recommendation]]:
        """Answer by the index; where too little is left of what it finds, or there is none, score every item.

        Args:
            request: what is asked.

        Returns:
            As `rank`.
        """
        tokens, moments, k, barred, hides_seen = request
        rows = np.flatnonzero(count_known(tokens))
        known = rows.tolist()
        if not known or self.index is None:
            return self.rank(request)
        most_seen = max(map(len, tokens)) if hides_seen else 0
        wanted = k + most_seen + (0 if barred is None else int(barred.sum()))
        vectors = self.vectors.vectors([tokens[row] for row in known], moments and moments.select(rows))
        found = zip(*self.index.search(vectors, wanted), strict=True)
        answers: list[list[Recommendation]] = [[] for _ in tokens]
        for row, (scores, items) in zip(known, found, strict=True):
            allowed = items >= 0
            if hides_seen:
                allowed &= ~np.isin(items, tokens[row] - FIRST_ITEM_ID)
            if barred is not None:
                allowed &= ~barred.numpy()[items]
            best = zip(items[allowed][:k].tolist(), scores[allowed][:k].tolist(), strict=True)
            answers[row] = [(self.item_ids[item], score) for item, score in best]
        short = [row for row, answer in enumerate(answers) if len(answer) < k]
        some = moments and moments.select(np.array(short, dtype=np.int64))
        ranked = self.rank(request._replace(tokens=[tokens[row] for row in short], moments=some))
        for row, answer in zip(short, ranked, strict=True):
            answers[row] = answer
        return answers

    def _best(self, scores: Tensor, k: int) -> list[list[Recommendation]]:
        """Give the k best items of each row of scores (B, V_items); -inf is never recommended."""
        top = top_items(scores, k)  # (B, K)
        values = scores.gather(1, top.clamp(min=0).to(scores.device, torch.int64))
        return [
            [
                (self.item_ids[column], value)
                for column, value in zip(columns, row, strict=True)
                if column >= 0
            ]
            for columns, row in zip(top.tolist(), values.tolist(), strict=True)
        ]
