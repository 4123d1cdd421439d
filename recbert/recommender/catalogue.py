"""One catalogue: a vocabulary, what its `recbert.json` says, and how a model ranks it."""

import logging
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from recbert.backends import ItemIndex, TorchScorer
from recbert.baselines import ItemLinks
from recbert.checkpoint import CheckpointInfo
from recbert.inputs import Moments
from recbert.models import check_fits
from recbert.recommender.blending import BlendedScorer
from recbert.recommender.histories import History, encode_histories
from recbert.recommender.ranker import Ranker, Recommendation, Request
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

logger = logging.getLogger(__name__)


class Catalogue:
    """The items of a checkpoint or of an adapter.

    Args:
        model: a stock model over the vocabulary, with or without an adapter.
        tokenizer: its item vocabulary.
        info: the content of its `recbert.json`.
        rules: the sequential rules of a checkpoint whose `info` has a blend.

    Raises:
        ValueError: they do not go together.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: ItemTokenizer, info: CheckpointInfo, rules: ItemLinks | None
    ) -> None:
        if len(info.popularity) != tokenizer.num_items:
            raise ValueError(
                f"recbert.json counts {len(info.popularity)} items and the tokenizer has "
                f"{tokenizer.num_items}: the files are of different checkpoints, copy the checkpoint again"
            )
        check_fits(model, tokenizer, info.input.max_length, info.input.time_encoding)
        self.tokenizer = tokenizer
        self.info = info
        self.scorer = TorchScorer(model, info.input, info.popularity)
        self.blended = BlendedScorer(self.scorer, rules, info.blend) if info.blend else None
        self.ranker = Ranker(self.blended or self.scorer, self.scorer, tokenizer.item_ids)
        self._denied = torch.tensor(self._columns(info.deny_list), dtype=torch.long)

    @property
    def knows_time(self) -> bool:
        """Whether the times of a request count."""
        return self.info.input.time_encoding is not None

    def answer(
        self,
        batch: Sequence[History],
        moments: Moments | None,
        k: int,
        *,
        exclude: Iterable[str],
        filter_seen: bool | None,
        candidates: Iterable[str] | None,
        strict: bool,
    ) -> list[list[Recommendation]]:
        """Give the best items of each history; see `Recommender.recommend`.

        Args:
            batch: lists of item ids.
            moments: their times, if the caller has them.
            k: how many items.
            exclude: item ids to leave out.
            filter_seen: whether to leave out the items of the history; None takes the checkpoint's setting.
            candidates: rank only these item ids.
            strict: refuse a history without a known item.

        Raises:
            ValueError: `strict` and nothing known.
        """
        request = Request(
            encode_histories(batch, self.tokenizer, strict),
            moments if self.knows_time else None,
            k,
            self._barred(candidates, exclude),
            self.info.filter_seen if filter_seen is None else filter_seen,
        )
        return self.ranker.search(request) if candidates is None else self.ranker.rank(request)

    def build_index(self, vectors: Tensor, *, recall: float, k: int) -> float:
        """Answer by approximate search from now on; see `Recommender.build_index`.

        Args:
            vectors: (B, D) of some histories, to tune it on.
            recall: the share of the truly best items to find on average.
            k: how many best items that share is of.

        Raises:
            ImportError: faiss is not installed.
            ValueError: `recall` out of range, or a blend.
        """
        if self.blended is not None:
            raise ValueError("a blend with rules needs the scores of all items: remove it, or build no index")
        if not 0 < recall <= 1:
            raise ValueError(f"recall is {recall}: it must be above 0 and at most 1")
        index = ItemIndex(*self.scorer.item_vectors())
        found = index.tune(vectors, k=k, recall=recall)
        self.ranker.index = index
        return found

    def unknown_items(self, history: History) -> list[str]:
        """Give the items of a history that the vocabulary does not have.

        Args:
            history: item ids.
        """
        return [item for item in history if item not in self.tokenizer]

    def _columns(self, items: Iterable[str]) -> list[int]:
        """Give the score columns of item ids; unknown ones are reported and have none."""
        if isinstance(items, str):
            raise ValueError(f"{items!r} is one string: give a list of item ids")
        items = list(items)
        if unknown := self.unknown_items(items):
            logger.warning("%d items are not in the catalogue, for example %s", len(unknown), unknown[:5])
        return [token - FIRST_ITEM_ID for token in self.tokenizer.encode(items) if token >= FIRST_ITEM_ID]

    def _barred(self, candidates: Iterable[str] | None, exclude: Iterable[str]) -> Tensor | None:
        """Mark the items that may not be recommended, (V_items,) bool; None where all of them may be."""
        columns = self._columns(exclude)
        if candidates is None and not columns and not len(self._denied):
            return None
        barred = torch.full((self.tokenizer.num_items,), candidates is not None)
        if candidates is not None:
            barred[self._columns(candidates)] = False
        barred[columns] = True
        barred[self._denied] = True
        return barred
