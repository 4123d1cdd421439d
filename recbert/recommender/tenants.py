"""Adapters that share one base: each with its own items, all in one model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from recbert.adapters import Residents
from recbert.baselines import read_links
from recbert.checkpoint import CheckpointInfo, read_info
from recbert.growth import grow_tables
from recbert.models import item_table
from recbert.recommender.catalogue import Catalogue
from recbert.recommender.loading import check_base
from recbert.tokenizer import ItemTokenizer


class Tenants:
    """The adapters of a recommender, by name, beside its base.

    Args:
        model: the base, changed in place.
        base: its catalogue.

    Attributes:
        touched: whether an adapter was ever loaded: peft's layers and rows for its items stay in the model.
    """

    def __init__(self, model: PreTrainedModel, base: Catalogue) -> None:
        self._model, self.touched = model, False
        self._residents = Residents(model)
        self._catalogues: dict[str | None, Catalogue] = {None: base}

    def load(self, name: str, adapter: str | Path, source: str | Path | None) -> None:
        """Load an adapter; see `Recommender.load_adapter`.

        Args:
            name: what it is called.
            adapter: its folder or Hub id.
            source: folder or Hub id of the base; None where nothing can be compared.

        Raises:
            FileNotFoundError: there is no such adapter.
            ValueError: it is damaged, or belongs to another base.
        """
        info = read_info(adapter)
        if source is not None:
            check_base(adapter, source, info)
        tokenizer = self._vocabulary(adapter, info)
        rules = read_links(adapter, tokenizer.num_items) if info.blend else None
        self._residents.activate(None)
        self.touched = True
        base = self._catalogues[None].tokenizer
        missing = len(tokenizer) - len(item_table(self._model)[0])
        if missing > 0:
            grow_tables(self._model, missing, items=base.num_items)
        catalogue = Catalogue(self._model, tokenizer, info, rules)
        self._residents.load(name, adapter)
        self._catalogues[name] = catalogue

    def unload(self, name: str) -> None:
        """Forget an adapter.

        Args:
            name: what it was called.

        Raises:
            ValueError: there is none of this name.
        """
        self.choose(name)
        self._residents.unload(name)
        del self._catalogues[name]

    def choose(self, name: str | None) -> Catalogue:
        """Let the base or an adapter answer from now on.

        Args:
            name: of the adapter; None is the base.

        Raises:
            ValueError: there is none of this name.
        """
        self._residents.activate(name)
        return self._catalogues[name]

    def _vocabulary(self, adapter: str | Path, info: CheckpointInfo) -> ItemTokenizer:
        """Read the items of an adapter: the base's and its own behind them."""
        base, found = self._catalogues[None].tokenizer, ItemTokenizer.from_pretrained(adapter)
        shared = found.num_items - info.own_items
        if shared != base.num_items or not found.extends(base):
            raise ValueError(
                f"the adapter {adapter} was trained on a base with {shared} items, this one has "
                f"{base.num_items}, or others: load it onto its own base"
            )
        return (
            base.with_items(found.item_ids[shared:]) if info.own_items else base
        )  # whose strings are shared then


def rows_by_adapter(
    adapter: str | None | Sequence[str | None], count: int
) -> dict[str | None, NDArray[np.int64]]:
    """Give the rows of a batch that each adapter answers.

    Args:
        adapter: one name for all of them, or one for each; None is the base.
        count: how many histories there are.

    Raises:
        ValueError: there are not as many names as histories.
    """
    if adapter is None or isinstance(adapter, str):
        return {adapter: np.arange(count)}
    if len(adapter) != count:
        raise ValueError(f"adapter names {len(adapter)} adapters for {count} histories: give one for each")
    rows: dict[str | None, list[int]] = {}
    for row, name in enumerate(adapter):
        rows.setdefault(name, []).append(row)
    return {name: np.array(found) for name, found in rows.items()}
