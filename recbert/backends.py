"""How scores are computed: the hidden state at the last position against the item matrix, in chunks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from recbert.checkpoint import InputFormat
from recbert.inputs import TokenIds, build_query, known_items
from recbert.models import hidden_only, item_table
from recbert.tokenizer import FIRST_ITEM_ID

CHUNK_ROWS = 4096


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
        counts = torch.from_numpy(np.asarray(popularity, dtype=np.float32))  # (V_items,)
        self._popularity = counts / counts.sum().clamp(min=1)

    @torch.no_grad()
    def vectors(self, histories: Sequence[TokenIds]) -> Tensor:
        """Give the hidden state that predicts the next item.

        Args:
            histories: B arrays of token ids, each with at least one known item.

        Returns:
            (B, D) in fp32, on the model's device.
        """
        query = build_query(histories, self.input_format)
        device = self.model.device
        inputs: dict[str, Any] = {"input_ids": query.input_ids.to(device)}
        if not bool(query.attention_mask.all()):  # rows of one length need no mask, and attend faster without
            inputs["attention_mask"] = query.attention_mask.to(device)
        if self._caches:
            inputs["use_cache"] = False  # keys and values are read once
        with hidden_only(self.model):
            hidden: Tensor = self.model(**inputs).logits  # (B, L, D)
        return hidden[torch.arange(len(hidden), device=device), query.last.to(device)].float()

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

    @torch.no_grad()
    def scores(self, histories: Sequence[TokenIds]) -> Tensor:
        """Score all items; a history without a known item gets the items' shares of the training events.

        Args:
            histories: B arrays of token ids, the earliest event first.

        Returns:
            (B, V_items) fp32 on the CPU, column j for the token id `FIRST_ITEM_ID + j`.
        """
        known = [index for index, history in enumerate(histories) if len(known_items(history))]
        if not known:
            return self._popularity.repeat(len(histories), 1)  # (B, V_items)
        weight, bias = self.item_vectors()
        logits = multiply_in_chunks(self.vectors([histories[index] for index in known]), weight)
        logits = (logits if bias is None else logits + bias).cpu()
        if len(known) == len(histories):
            return logits
        scores = self._popularity.repeat(len(histories), 1)
        scores[known] = logits
        return scores


def multiply_in_chunks(vectors: Tensor, weight: Tensor) -> Tensor:
    """Multiply by the item matrix in blocks of one shape, so that a longer matrix changes no earlier column.

    Args:
        vectors: (B, D).
        weight: (V, D).

    Returns:
        (B, V).
    """
    products = vectors.new_empty(len(vectors), len(weight))
    for start in range(0, len(weight), CHUNK_ROWS):
        block = weight[start : start + CHUNK_ROWS]
        if len(block) < CHUNK_ROWS:
            filled = torch.nn.functional.pad(block, (0, 0, 0, CHUNK_ROWS - len(block)))
            products[:, start:] = (vectors @ filled.T)[:, : len(block)]
        else:
            products[:, start : start + CHUNK_ROWS] = vectors @ block.T
    return products
