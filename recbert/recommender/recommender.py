"""Next-item recommendations for histories of item ids."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from recbert.backends import ItemIndex, TorchScorer
from recbert.baselines import ItemLinks, read_links, write_links
from recbert.checkpoint import INFO_FILE, CheckpointInfo, find_file, read_info, write_folder
from recbert.checkpoint.saving import RECIPE_FILE, write_checkpoint
from recbert.growth import NEIGHBOURS, Start, grow_tables
from recbert.inputs import Moments
from recbert.models import check_fits
from recbert.recommender.blending import BlendedScorer
from recbert.recommender.growing import check_start, grown_info, item_words, nearest_items
from recbert.recommender.histories import History, Time, Times, as_batch, encode_histories, read_moments
from recbert.recommender.loading import load_model, place_model
from recbert.recommender.ranker import Ranker, Request
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

logger = logging.getLogger(__name__)


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
        self.titles = dict(titles or {})
        self._recipe = ""
        self._take(model, tokenizer, info, rules)

    def _take(
        self, model: PreTrainedModel, tokenizer: ItemTokenizer, info: CheckpointInfo, rules: ItemLinks | None
    ) -> None:
        """Answer from these."""
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
        self.scorer = TorchScorer(model, info.input, info.popularity)
        self.blended = BlendedScorer(self.scorer, rules, info.blend) if info.blend else None
        self._ranker = Ranker(self.blended or self.scorer, self.scorer, tokenizer.item_ids)
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
        recommender = cls(model, tokenizer, info, titles, rules)
        recipe = find_file(checkpoint, RECIPE_FILE)
        recommender._recipe = "" if recipe is None else recipe.read_text(encoding="utf-8")
        return recommender

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint as it is now, with what was added; what stood in `folder` stays until then.

        Args:
            folder: where to; the folder it was loaded from will do.

        Raises:
            FileExistsError: `folder` is no checkpoint and holds other things.
        """
        with write_folder(folder, marker=INFO_FILE) as draft:
            write_checkpoint(draft, self.model, self.tokenizer, self.info, recipe=self._recipe)
            if self.blended is not None:
                write_links(draft, self.blended.links)

    def add_items(
        self,
        items: Any,
        *,
        start: Start = "mean",
        neighbours: int = NEIGHBOURS,
        known: Any = None,
    ) -> None:
        """Take new items into the catalogue: they have tokens behind the old ones and can be recommended.

        The scores of old items stay the same to the last bit. Until the model is trained on events of the new
        items (`recbert finetune`), they are ranked by where they begin. An index for approximate search goes.

        Args:
            items: what is new: a table, or the path of one, with a column `item_id` and, where it is to begin
                near like items, `title` and `categories`; or words by item id; or item ids.
            start: where rows begin. `mean`: at the mean of all items. `neighbours`: at the mean of the old
                items that have most words in common, and at that of all items without any.
            neighbours: how many old items these are.
            known: words of the old items, in the same forms; None takes `titles`.

        Raises:
            ValueError: an item is in the catalogue already or named twice, there are no words to find
                neighbours by, or the model has an adapter.
        """
        check_start(start, neighbours)
        item_ids, words = item_words(items)
        tokenizer = self.tokenizer.with_items(item_ids)
        near = None
        if start == "neighbours":
            old = self.titles if known is None else dict(zip(*item_words(known), strict=True))
            near = nearest_items(words, old, self.tokenizer, neighbours)
        if hasattr(self.model, "peft_config"):
            raise ValueError("the model has an adapter: add items to its base, or merge the adapter first")
        grow_tables(self.model, len(item_ids), near)
        rules = self.blended.links.with_items(len(item_ids)) if self.blended else None
        self._take(self.model, tokenizer, grown_info(self.info, len(item_ids)), rules)

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
        request = Request(
            encode_histories(batch, self.tokenizer, strict),
            self._moments(batch, timestamps, at, one=batch is not history),
            k,
            self._barred(candidates, exclude),
            self.info.filter_seen if filter_seen is None else filter_seen,
        )
        answers = self._ranker.search(request) if candidates is None else self._ranker.rank(request)
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
        self._ranker.index = index
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
