"""Next-item recommendations for histories of item ids."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from recbert.adapters import is_adapted
from recbert.baselines import ItemLinks, read_links, write_links
from recbert.checkpoint import INFO_FILE, CheckpointInfo, read_info, write_folder
from recbert.checkpoint.saving import read_recipe, write_checkpoint
from recbert.growth import NEIGHBOURS, Start
from recbert.inputs import Moments
from recbert.recommender.catalogue import Catalogue
from recbert.recommender.growing import grow
from recbert.recommender.histories import History, Time, Times, as_batch, encode_histories, read_moments
from recbert.recommender.loading import load_model, place_model
from recbert.recommender.ranker import Recommendation
from recbert.recommender.tenants import Tenants, rows_by_adapter
from recbert.tokenizer import ItemTokenizer

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
        model.train(False)
        self.model = model
        self.titles = dict(titles or {})
        self._source: str | Path | None = None
        self._take(Catalogue(model, tokenizer, info, rules))

    def _take(self, catalogue: Catalogue) -> None:
        """Answer for these items."""
        self._catalogue = catalogue
        self._tenants = Tenants(self.model, catalogue)
        self.tokenizer, self.info = catalogue.tokenizer, catalogue.info
        self.scorer, self.blended = catalogue.scorer, catalogue.blended

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
        recommender._source = checkpoint
        return recommender

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint as it is now, with what was added; what stood in `folder` stays until then.

        Args:
            folder: where to; the folder it was loaded from will do.

        Raises:
            FileExistsError: `folder` is no checkpoint and holds other things.
            ValueError: as `refuse_adapters`.
        """
        self.refuse_adapters()
        recipe = read_recipe(self._source)
        with write_folder(folder, marker=INFO_FILE) as draft:
            write_checkpoint(draft, self.model, self.tokenizer, self.info, recipe=recipe)
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
        self.refuse_adapters()
        known = self.titles if known is None else known
        grown = grow(self.model, self._catalogue, items, start=start, neighbours=neighbours, known=known)
        self._take(grown)

    def refuse_adapters(self) -> None:
        """Raise ValueError where the model is no base alone: only that can be changed and saved."""
        if self._tenants.touched or is_adapted(self.model):
            raise ValueError(
                "the model has an adapter: load its base alone, or merge the adapter into it first"
            )

    def load_adapter(self, name: str, adapter: str | Path) -> None:
        """Load an adapter beside the base and other adapters; `recommend(..., adapter=name)` asks it.

        An adapter brings its own items, deny-list, popularity and blend. Changing from one to another takes
        milliseconds and leaves no trace; one model answers one request at a time.

        Args:
            name: what it is called from now on; one of this name is replaced.
            adapter: its folder or Hub id.

        Raises:
            FileNotFoundError: there is no such adapter.
            ValueError: it is damaged, or belongs to another base or to a grown one.
        """
        if is_adapted(self.model):
            raise ValueError("this is an adapter on its base: load the base, then both adapters by name")
        self._tenants.load(name, adapter, self._source)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter.

        Args:
            name: what it was called.

        Raises:
            ValueError: there is none of this name.
        """
        self._tenants.unload(name)

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
        adapter: str | None | Sequence[str | None] = None,
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
            adapter: name of a loaded adapter that answers, or one for each history; None is the model itself.

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
        exclude = exclude if isinstance(exclude, str) else list(exclude)  # each adapter asks anew
        candidates = candidates if candidates is None or isinstance(candidates, str) else list(candidates)
        answers: list[list[Recommendation]] = [[] for _ in batch]
        times: Moments | None = None
        for name, rows in rows_by_adapter(adapter, len(batch)).items():
            catalogue = self._tenants.choose(name)
            if times is None and catalogue.knows_time:
                times = read_moments(batch, timestamps, at, one=batch is not history)
            answered = catalogue.answer(
                [batch[row] for row in rows],
                times and times.select(rows),
                k,
                exclude=exclude,
                filter_seen=filter_seen,
                candidates=candidates,
                strict=strict,
            )
            for row, answer in zip(rows, answered, strict=True):
                answers[row] = answer
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
        if not histories:
            raise ValueError("histories is empty: give some hundred histories to tune the search on")
        return self._tenants.choose(None).build_index(self.encode(histories), recall=recall, k=k)

    def encode(
        self,
        histories: Sequence[History],
        *,
        timestamps: Sequence[Times] | None = None,
        at: Time | Sequence[Time] | None = None,
        adapter: str | None = None,
    ) -> Tensor:
        """Give the vector of each history: the hidden state that predicts the next item.

        Args:
            histories: B lists of item ids, each with at least one known item.
            timestamps: as for `recommend`.
            at: as for `recommend`.
            adapter: name of a loaded adapter; None is the model itself.

        Returns:
            (B, D) in fp32 on the CPU; its product with the item vectors is the score.

        Raises:
            ValueError: a history has no known item.
        """
        catalogue = self._tenants.choose(adapter)
        knows_time = catalogue.knows_time
        moments = read_moments(histories, timestamps, at, one=False) if knows_time else None
        tokens = encode_histories(histories, catalogue.tokenizer, strict=True)
        return catalogue.scorer.vectors(tokens, moments).cpu()

    def unknown_items(self, history: History) -> list[str]:
        """Give the items of a history that the vocabulary does not have.

        Args:
            history: item ids.
        """
        return self._catalogue.unknown_items(history)
