"""How scores are computed: the hidden state at the last position against the item matrix, in chunks."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from recbert.checkpoint import InputFormat
from recbert.inputs import Moments, TokenIds, build_query, count_known, group_by_length
from recbert.models import hidden_only, item_table, last_only
from recbert.tokenizer import FIRST_ITEM_ID

CHUNK_ROWS = 4096

_ROWS_OF_FORWARD = 512
"""Histories that go through the model at once: more gain nothing and fill up to longer ones."""


class TorchScorer:
    """Scores of every item for a batch of histories, by PyTorch on the model's device.

    The item matrix is multiplied 4,096 rows at a time, the last block filled up with zeros: for the same
    batch, the scores of old items stay the same to the last bit when rows are added at the end. Scores are
    fp32 whatever the model computes in.

    Args:
        model: any model of `recbert.build_model` or loaded by an Auto class, with or without an adapter.
        input_format: how it wants its histories.
        popularity: training events of each item; the score of histories without a known item.
    """

    def __init__(
        self, model: PreTrainedModel, input_format: InputFormat, popularity: Sequence[int] | TokenIds
    ) -> None:
        self.model = model
        self.input_format = input_format
        is_causal = input_format.objective == "next-item"
        self._caches = is_causal and bool(getattr(model.config, "use_cache", False))
        self._last_chunk: Tensor | None = None
        counts = torch.from_numpy(np.asarray(popularity, dtype=np.float32))  # (V_items,)
        self._popularity = counts / counts.sum().clamp(min=1)

    @torch.no_grad()
    def vectors(self, histories: Sequence[TokenIds], moments: Moments | None = None) -> Tensor:
        """Give the hidden state that predicts the next item.

        Args:
            histories: B arrays of token ids, each with at least one known item.
            moments: their times, for a checkpoint that knows of time; None for unknown ones.

        Returns:
            (B, D) in fp32, on the model's device.
        """
        if len(histories) <= _ROWS_OF_FORWARD:
            return self._forward(histories, moments)
        lengths = np.fromiter(map(len, histories), dtype=np.int64, count=len(histories))
        groups = group_by_length(lengths, _ROWS_OF_FORWARD)
        parts = torch.cat(
            [
                self._forward([histories[row] for row in rows], moments and moments.select(rows))
                for rows in groups
            ]
        )
        vectors = torch.empty_like(parts)
        vectors[torch.from_numpy(np.concatenate(groups)).to(parts.device)] = parts
        return vectors

    def _forward(self, histories: Sequence[TokenIds], moments: Moments | None) -> Tensor:
        """Give the hidden states (B, D) of one padded batch."""
        query = build_query(histories, self.input_format, moments)
        device = self.model.device
        inputs: dict[str, Any] = query.inputs(device)
        if self._caches:
            inputs["use_cache"] = False  # keys and values are read once
        last = query.last.to(device)
        # The hooks cost more than they save on a single row.
        cut = last_only(self.model, last) if len(last) > 1 else contextlib.nullcontext()
        with hidden_only(self.model), cut:
            hidden: Tensor = self.model(**inputs).logits  # (B, 1, D), or (B, L, D)
        if hidden.shape[1] == 1 or len(hidden) == 1:
            return hidden[:, -1].float()
        return hidden[torch.arange(len(hidden), device=device), last].float()

    def _chunks(self, weight: Tensor) -> list[Tensor]:
        """Cut the item matrix (V, D) into blocks of one shape, so that a longer one changes no earlier score.

        The last one is filled up with zeros, in memory that is kept: fresh pages cost more than the copy.
        """
        chunks = list(torch.split(weight, CHUNK_ROWS))
        rows = len(chunks[-1])
        if self._last_chunk is None or self._last_chunk.device != weight.device:
            with torch.inference_mode(False):  # the next call may come from outside of it
                self._last_chunk = weight.new_zeros(CHUNK_ROWS, weight.shape[1])
        self._last_chunk[:rows] = chunks[-1]
        chunks[-1] = self._last_chunk
        return chunks

    @torch.no_grad()
    def item_vectors(self) -> tuple[Tensor, Tensor | None]:
        """Give the item matrix and its bias, item rows only.

        Returns:
            weight: (V_items, D) in fp32.
            bias: (V_items,) in fp32, or None.
        """
        weight, bias = item_table(self.model)
        items = slice(FIRST_ITEM_ID, FIRST_ITEM_ID + len(self._popularity))
        return weight[items].float(), None if bias is None else bias[items].float()

    def scores(self, histories: Sequence[TokenIds], moments: Moments | None = None) -> Tensor:
        """Score all items; a history without a known item gets the items' shares of the training events.

        Args:
            histories: B arrays of token ids, the earliest event first.
            moments: their times, as for `vectors`.

        Returns:
            (B, V_items) fp32 on the CPU, column j for the token id `FIRST_ITEM_ID + j`.
        """
        blocks = [block.cpu().clone() for block in self.score_blocks(histories, moments)]
        return torch.cat(blocks) if blocks else torch.empty(0, len(self._popularity))

    @torch.no_grad()
    def score_blocks(self, histories: Sequence[TokenIds], moments: Moments | None = None) -> Iterator[Tensor]:
        """Give the scores of a few histories at a time, so that they are used while in the cache.

        Args:
            histories: B arrays of token ids, the earliest event first.
            moments: their times, as for `vectors`.

        Yields:
            (b, V_items) fp32 on the model's device, the next b rows of `scores`. Change it as you like: the
            next block takes its place.
        """
        known = count_known(histories) > 0
        weight, bias = self.item_vectors()
        vectors = weight[:0]
        if known.any():
            some = moments and moments.select(known)
            vectors = self.vectors(list(itertools.compress(histories, known)), some)
        chunks = self._chunks(weight)
        size = _rows_at_once(weight)
        products = weight.new_empty(min(size, len(vectors)), len(chunks) * CHUNK_ROWS)
        answered = 0
        for start in range(0, len(histories), size):
            here = torch.from_numpy(known[start : start + size])
            found = int(here.sum())
            _multiply(vectors[answered : answered + found], chunks, products[:found])
            answered += found
            scores = products[:found, : len(weight)]
            if bias is not None:
                scores += bias
            if found < len(here):
                mixed = self._popularity.to(scores.device).repeat(len(here), 1)
                mixed[here.to(scores.device)] = scores
                scores = mixed
            yield scores


def _rows_at_once(weight: Tensor) -> int:
    """Give how many rows of scores are computed at once: on a CPU those that its caches hold."""
    on_cpu = weight.device.type == "cpu"
    most, cells = (128, 1 << 26) if on_cpu else (4096, 1 << 28)
    return max(1, min(most, cells // max(1, len(weight))))


def _multiply(vectors: Tensor, chunks: Sequence[Tensor], products: Tensor) -> None:
    """Fill `products` with the products of vectors (B, D) and all chunks of the item matrix."""
    for number, chunk in enumerate(chunks):
        torch.mm(vectors, chunk.T, out=products[:, number * CHUNK_ROWS : (number + 1) * CHUNK_ROWS])
