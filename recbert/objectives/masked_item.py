"""Masked-item prediction: hidden events are guessed from both sides."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recbert.checkpoint import InputFormat
from recbert.inputs import TrainRow, pad_right
from recbert.objectives.losses import full_softmax, labelled
from recbert.tokenizer import MASK_ID, PAD_ID, ItemTokenizer


class MaskedItem:
    """Predict masked events from the events on both sides, as BERT4Rec does.

    Needs `input_ids` and `is_target`. Each target event is replaced by `[MASK]` with probability `mask_rate`,
    at least one in a row; a share `last_item_share` of the rows instead masks the last target alone, which is
    what a query looks like (`[MASK]` appended to the history). The loss is the mean of
    `-log p(x_t | the unmasked)` over the masked events. Its sibling `NextItem` needs no mask rate and learns
    from every position. Source: Sun et al., "BERT4Rec", 2019.

    Args:
        tokenizer: the vocabulary; it is saved with the model.
        max_length: positions that the model sees at most, the appended `[MASK]` counted in.
        mask_rate: probability of masking an event, in (0, 1).
        last_item_share: share of rows that mask only the last event, in [0, 1].

    Raises:
        ValueError: a rate outside its range.
    """

    least_events = 1

    def __init__(
        self,
        tokenizer: ItemTokenizer,
        max_length: int = 200,
        *,
        mask_rate: float = 0.2,
        last_item_share: float = 0.1,
    ) -> None:
        if not 0 < mask_rate < 1:
            raise ValueError(f"mask_rate is {mask_rate}: it must be above 0 and below 1")
        if not 0 <= last_item_share <= 1:
            raise ValueError(f"last_item_share is {last_item_share}: it must be from 0 to 1")
        self.tokenizer = tokenizer
        self.input_format = InputFormat("masked-item", max_length)
        self.mask_rate = mask_rate
        self.last_item_share = last_item_share

    def collate(self, rows: Sequence[TrainRow]) -> dict[str, Tensor]:
        """Lay rows out as model input with labels.

        The masks of a row depend on its seed alone, not on the batch or the number of processes.

        Args:
            rows: B training sequences.

        Returns:
            `input_ids`, `attention_mask` and `labels`, each (B, L) int64; labels are -100 where nothing is
            masked.
        """
        keep = self.input_format.max_length
        pairs = [(row.tokens[-keep:], self._mask(row)[-keep:]) for row in rows]
        input_ids, attention_mask = pad_right(
            [np.where(mask, MASK_ID, tokens) for tokens, mask in pairs], PAD_ID
        )
        labels, _ = pad_right([np.where(mask, tokens, -100) for tokens, mask in pairs], -100)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

    def _mask(self, row: TrainRow) -> NDArray[np.bool_]:
        """Choose the events of a row to mask, (L,): at least one of the targets that the model will see."""
        random = np.random.default_rng(row.seed)
        last_only = random.random() < self.last_item_share
        draws = random.random(len(row.tokens))
        mask = np.zeros(len(draws), dtype=np.bool_)
        places = np.flatnonzero(row.is_target)
        places = places[places >= len(draws) - self.input_format.max_length]
        if len(places) == 0:
            return mask
        mask[places] = draws[places] < self.mask_rate
        if last_only:
            mask[places[:-1]], mask[places[-1]] = False, True
        elif not mask.any():
            mask[places[draws[places].argmin()]] = True
        return mask

    def loss(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        """Sum the loss over the labels.

        Args:
            hidden: (B, L, D) hidden states.
            weight: (V, D) item matrix.
            bias: (V,) or None.
            labels: (B, L) as `collate` gives them.

        Returns:
            A scalar, in nats.
        """
        hidden, labels = labelled(hidden, labels)
        return full_softmax(hidden, weight, bias, labels)
