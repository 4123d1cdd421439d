"""Masked-item prediction: hidden events are guessed from both sides."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbert.checkpoint import Anchoring, InputFormat, TimeEncoding
from recbert.inputs import (
    Augmentation,
    TrainBatch,
    add_positions,
    add_training_times,
    lay_out,
    present_places,
    uniform,
)
from recbert.objectives.losses import FullSoftmax, Loss, labelled
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
        anchoring: whether learned positions are counted from the `left` or from the `right` end of what the
            model sees.
        time_encoding: how the times of the events and of the request enter, see `InputFormat`; the data then
            needs `timestamps`.
        augmentation: random changes of the sequences before the masks; None for none.
        loss: `FullSoftmax`, which None stands for, or one over a sample of the catalogue.

    Raises:
        ValueError: a rate outside its range, or an augmentation that masks too.
    """

    least_events = 1

    def __init__(
        self,
        tokenizer: ItemTokenizer,
        max_length: int = 200,
        *,
        mask_rate: float = 0.2,
        last_item_share: float = 0.1,
        anchoring: Anchoring = "left",
        time_encoding: TimeEncoding | None = None,
        augmentation: Augmentation | None = None,
        loss: Loss | None = None,
    ) -> None:
        if not 0 < mask_rate < 1:
            raise ValueError(f"mask_rate is {mask_rate}: it must be above 0 and below 1")
        if not 0 <= last_item_share <= 1:
            raise ValueError(f"last_item_share is {last_item_share}: it must be from 0 to 1")
        if augmentation is not None and augmentation.mask:
            raise ValueError(
                f"augmentation.mask is {augmentation.mask}: masked-item training masks events already, "
                "set mask_rate"
            )
        self.tokenizer = tokenizer
        self.input_format = InputFormat(
            "masked-item", max_length, anchoring=anchoring, time_encoding=time_encoding
        )
        self.mask_rate = mask_rate
        self.last_item_share = last_item_share
        self._augmentation = augmentation or Augmentation()
        self.loss_function = loss or FullSoftmax()

    def collate(self, batch: TrainBatch) -> dict[str, Tensor]:
        """Lay sequences out as model input with labels.

        The masks of a row depend on its number, the seed and the epoch alone, not on the batch or the number
        of processes.

        Args:
            batch: B training sequences.

        Returns:
            `input_ids`, `attention_mask` and `labels`, each (B, L) int64, and `position_ids` where they are
            anchored on the right; labels are -100 where nothing is masked.
        """
        batch = self._augmentation.rearrange(batch).last(self.input_format.max_length)
        present = present_places(batch.lengths)  # (B, L)
        tokens = lay_out(batch.tokens, present, PAD_ID)
        mask = self._mask(batch, lay_out(batch.is_target, present, False))
        inputs = {
            "input_ids": torch.from_numpy(np.where(mask, MASK_ID, tokens)),
            "attention_mask": torch.from_numpy(present.astype(np.int64)),
            "labels": torch.from_numpy(np.where(mask, tokens, -100)),
        }
        return add_positions(add_training_times(inputs, batch, self.input_format), self.input_format)

    def _mask(self, batch: TrainBatch, is_target: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Choose the events to mask, (B, L): at least one of the targets of each row that has any."""
        # Counted from the end, so that cutting a row off at its start leaves its masks as they are; 0 is the
        # draw of the row itself.
        places = batch.lengths[:, None] - np.arange(is_target.shape[1] + 1)
        places[:, -1] = 0
        draws = uniform(batch, places)  # (B, L + 1)
        last_only = draws[:, -1] < self.last_item_share
        draws = np.where(is_target, draws[:, :-1], np.inf)
        mask = draws < self.mask_rate
        rows = np.arange(len(mask))
        last = is_target.shape[1] - 1 - is_target[:, ::-1].argmax(1)
        chosen = np.where(last_only, last, draws.argmin(1))
        single = (last_only | ~mask.any(1)) & is_target.any(1)
        mask[single] = False
        mask[rows[single], chosen[single]] = True
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
        hidden, labels, rows = labelled(hidden, labels)
        return self.loss_function(hidden, weight, bias, labels, rows)
