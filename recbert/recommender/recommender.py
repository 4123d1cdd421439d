"""Next-item recommendations for histories of item ids."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from recbert.backends import ItemIndex, TorchScorer
from recbert.baselines import ItemLinks, read_links
from recbert.checkpoint import CheckpointInfo, read_info
from recbert.evaluation import hide_seen, top_items
from recbert.inputs import Moments, TokenIds, count_known
from recbert.models import check_fits
from recbert.recommender.blending import BlendedScorer
from recbert.recommender.histories import History, Time, Times, as_batch, encode_histories, read_moments
from recbert.recommender.loading import load_model, place_model
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

logger = logging.getLogger(__name__)

Recommendation = tuple[str, float]


class _Request(NamedTuple):
    """What is asked: see `Recommender.recommend`."""

    tokens: Sequence[TokenIds]
    moments: Moments | None
    k: int
    barred: Tensor | None
    hides_seen: bool


class Recommender:
    """Next-item recommendations from a checkpoint, for any history of item ids.

    Args:
        model: a stock model over the vocabulary, with or without an adapter.
        tokenizer: its item vocabulary.
        info: the content of its `recbert.json`.
        titles: title of each item id, for display.
        rules: the sequential rules of a checkpoint whose `info` has a blend.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: ItemTokenizer,
        info: CheckpointInfo,
        titles: Mapping[str, str] | None = None,
        rules: ItemLinks | None = None,
    ) -> None:
        if len(info.popularity) != tokenizer.num_items:
            raise ValueError(
                f"recbert.json counts {len(info.popularity)} items and the tokenizer has "
                f"{tokenizer.num_items}: the files are of different checkpoints, copy the checkpoint again"
            )
        check_fits(model, tokenizer, info.input.max_length, info.input.time_encoding)
        model.train(False)
        self.model = model
        self.tokenizer = tokenizer
        self.info = info
        self.titles = dict(titles or {})
        self.scorer = TorchScorer(model, info.input, info.popularity)
        self.blended = BlendedScorer(self.scorer, rules, info.blend) if info.blend else None
        self._index: ItemIndex | None = None
        self._denied = torch.tensor(self._columns(info.deny_list), dtype=torch.long)

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        *,
        base: str | Path | None = None,
        titles: Mapping[str, str] | None = None,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load a checkpoint or an adapter, which brings its base along.

        Args:
            checkpoint: a folder or a Hub id.
            base: for an adapter, the folder or Hub id of its base; None takes the one that it names.
            titles: title of each item id, for display.
            device: where to compute.

        Raises:
            FileNotFoundError: the folder, its tokenizer, weights, rules or `recbert.json` are missing.
            ValueError: a file is damaged, or the adapter belongs to another base.
        """
        info = read_info(checkpoint)
        tokenizer = ItemTokenizer.from_pretrained(checkpoint)
        model = load_model(checkpoint, base, info)
        place_model(model, device)
        rules = read_links(checkpoint, tokenizer.num_items) if info.blend else None
        return cls(model, tokenizer, info, titles, rules)

    @torch.inference_mode()
    def recommend(
        self,
        history: History | Sequence[History],
        k: int = 10,
        *,
        exclude: Iterable[str] = (),
        filter_seen: bool | None = None,
        candidates: Iterable[str] | None = None,
        strict: bool = False,
        timestamps: Times | Sequence[Times] | None = None,
        at: Time | Sequence[Time] | None = None,
    ) -> list[Any]:
        """Give the best next items of one history or of a batch of histories.

        Unknown items of a history are skipped and reported by a warning. A history without any known item is
        answered by the popularity that was saved with the checkpoint, and a warning says so.

        Args:
            history: item ids, the earliest first; or a list of such histories. An empty list is one empty
                history.
            k: how many items, at least 1; fewer come back when fewer are allowed.
            exclude: item ids to leave out.
            filter_seen: whether to leave out the items of the history; None takes the checkpoint's setting.
            candidates: rank only these item ids; what `exclude` or `filter_seen` leaves out stays out.
            strict: refuse a history without a known item instead of answering by popularity.
            timestamps: when the events happened: epoch seconds or datetimes (UTC unless they name a zone),
                one for each event. A checkpoint that was trained without time ignores them; one that was
                trained with them answers from the order alone if they are left out.
            at: when the items are asked for, one time for all histories or one for each; None is now where
                there are timestamps.

        Returns:
            (item id, score) pairs, the best first; one list of them for each history of a batch. Scores are
            logits (raised by the rules of a blended checkpoint), or shares of the training events where
            popularity answers. Items with equal scores come in the order of their ids.

        Raises:
            ValueError: `k` below 1, a history that is not of strings, as many times as events not given, or
                `strict` and nothing known.
        """
        if k < 1:
            raise ValueError(f"k is {k}: it must be at least 1")
        batch = as_batch(history)
        request = _Request(
            encode_histories(batch, self.tokenizer, strict),
            self._moments(batch, timestamps, at, one=batch is not history),
            k,
            self._barred(candidates, exclude),
            self.info.filter_seen if filter_seen is None else filter_seen,
        )
        if self._index is not None and candidates is None:
            answers = self._search(self._index, request)
        else:
            answers = self._rank(request)
        return answers if batch is history else answers[0]

    def build_index(self, histories: Sequence[History], *, recall: float = 0.95, k: int = 10) -> float:
        """Answer by approximate search from now on, for catalogues past about a million items.

        Items are found, not all scored; the scores of those found are exact. `candidates`, histories without
        a known item, and lists that approximate search cannot fill are still answered by scoring everything.
        Build it again when the model or its adapter changes.

        Args:
            histories: some hundred histories like those to come, each with a known item, to tune it on.
            recall: the share of the truly best items to find on average, above 0 and at most 1.
            k: how many best items that share is of.

        Returns:
            The share that was found on `histories`; the log names it too.

        Raises:
            ImportError: faiss is not installed.
            ValueError: `recall` out of range, no histories, one without a known item, or a blend.
        """
        if self.blended is not None:
            raise ValueError("a blend with rules needs the scores of all items: remove it, or build no index")
        if not 0 < recall <= 1:
            raise ValueError(f"recall is {recall}: it must be above 0 and at most 1")
        if not histories:
            raise ValueError("histories is empty: give some hundred histories to tune the search on")
        vectors = self.encode(histories)
        index = ItemIndex(*self.scorer.item_vectors())
        found = index.tune(vectors, k=k, recall=recall)
        self._index = index
        return found

    def encode(
        self,
        histories: Sequence[History],
        *,
        timestamps: Sequence[Times] | None = None,
        at: Time | Sequence[Time] | None = None,
    ) -> Tensor:
        """Give the vector of each history: the hidden state that predicts the next item.

        Args:
            histories: B lists of item ids, each with at least one known item.
            timestamps: as for `recommend`.
            at: as for `recommend`.

        Returns:
            (B, D) in fp32 on the CPU; its product with the item vectors is the score.

        Raises:
            ValueError: a history has no known item.
        """
        moments = self._moments(histories, timestamps, at, one=False)
        return self.scorer.vectors(encode_histories(histories, self.tokenizer, strict=True), moments).cpu()

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

    def _moments(self, batch: Sequence[History], timestamps: Any, at: Any, one: bool) -> Moments | None:
        """Read the times of a request where the checkpoint knows of time."""
        if self.info.input.time_encoding is None:
            return None
        return read_moments(batch, timestamps, at, one=one)

    def _rank(self, request: _Request) -> list[list[Recommendation]]:
        """Answer by scoring every item."""
        tokens, moments, k, barred, hides_seen = request
        answers: list[list[Recommendation]] = []
        for scores in (self.blended or self.scorer).score_blocks(tokens, moments):  # (b, V_items)
            if barred is not None:
                scores[:, barred.to(scores.device)] = -torch.inf
            if hides_seen:
                hide_seen(scores, tokens[len(answers) : len(answers) + len(scores)])
            answers.extend(self._best(scores, k))
        return answers

    def _search(self, index: ItemIndex, request: _Request) -> list[list[Recommendation]]:
        """Answer by approximate search; where too little is left of what it finds, by scoring every item."""
        tokens, moments, k, barred, hides_seen = request
        rows = np.flatnonzero(count_known(tokens))
        known = rows.tolist()
        if not known:
            return self._rank(request)
        most_seen = max(map(len, tokens)) if hides_seen else 0
        wanted = k + most_seen + (0 if barred is None else int(barred.sum()))
        vectors = self.scorer.vectors([tokens[row] for row in known], moments and moments.select(rows))
        found = zip(*index.search(vectors, wanted), strict=True)
        item_ids = self.tokenizer.item_ids
        answers: list[list[Recommendation]] = [[] for _ in tokens]
        for row, (scores, items) in zip(known, found, strict=True):
            allowed = items >= 0
            if hides_seen:
                allowed &= ~np.isin(items, tokens[row] - FIRST_ITEM_ID)
            if barred is not None:
                allowed &= ~barred.numpy()[items]
            best = zip(items[allowed][:k].tolist(), scores[allowed][:k].tolist(), strict=True)
            answers[row] = [(item_ids[item], score) for item, score in best]
        short = [row for row, answer in enumerate(answers) if len(answer) < k]
        some = moments and moments.select(np.array(short, dtype=np.int64))
        ranked = self._rank(request._replace(tokens=[tokens[row] for row in short], moments=some))
        for row, answer in zip(short, ranked, strict=True):
            answers[row] = answer
        return answers

    def _best(self, scores: Tensor, k: int) -> list[list[Recommendation]]:
        """Give the k best items of each row of scores (B, V_items); -inf is never recommended."""
        top = top_items(scores, k)  # (B, K)
        values = scores.gather(1, top.clamp(min=0).to(scores.device, torch.int64))
        item_ids = self.tokenizer.item_ids
        return [
            [(item_ids[column], value) for column, value in zip(columns, row, strict=True) if column >= 0]
            for columns, row in zip(top.tolist(), values.tolist(), strict=True)
        ]
