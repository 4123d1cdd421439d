"""Next-item prediction: every position predicts the event after it."""

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
from recbert.tokenizer import BOS_ID, MASK_ID, PAD_ID, ItemTokenizer

_AHEAD = 4
"""Purpose of the random numbers that choose among later events; augmentation takes 1 to 3."""


class NextItem:
    """Predict each event from those before it, as GPT-style and recurrent models do.

    Needs `input_ids` and `is_target`. A row of L + 1 events gives L inputs and L labels; labels stand only at
    events marked as targets. The loss is the mean of `-log p(x_{t+1} | x_1 .. x_t)` over the labels.
    Training matches the query exactly (the last position predicts), which is why it usually converges faster
    than its sibling `MaskedItem`. Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", 2018,
    with the full softmax of Klenitskiy and Vasilev, "Turning Dross Into Gold Loss", 2023.

    Args:
        tokenizer: the vocabulary; it is saved with the model.
        max_length: positions that the model sees at most.
        time_encoding: how the times of the events and of the request enter, see `InputFormat`; the data then
            needs `timestamps`.
        start_token: put `[BOS]` in front of each history, from which its first event is predicted too; it
            takes one of the positions.
        horizon: a position predicts a random one of this many events after it, another one in every epoch;
            1 for the next one. More is for lists that serve a while: the dense all-action loss of Pancha et
            al., "PinnerFormer", 2022.
        anchoring: whether learned positions are counted from the `left` or from the `right` end of what the
            model sees.
        augmentation: random changes of the sequences; None for none.
        loss: `FullSoftmax`, which None stands for, or one over a sample of the catalogue.

    Raises:
        ValueError: `horizon` below 1, or above 1 with a time encoding.
    """

    def __init__(
        self,
        tokenizer: ItemTokenizer,
        max_length: int = 200,
        *,
        time_encoding: TimeEncoding | None = None,
        start_token: bool = False,
        horizon: int = 1,
        anchoring: Anchoring = "left",
        augmentation: Augmentation | None = None,
        loss: Loss | None = None,
    ) -> None:
        if horizon < 1:
            raise ValueError(f"horizon is {horizon}: it must be at least 1, which is the next event")
        self.tokenizer = tokenizer
        if horizon > 1 and time_encoding is not None:
            raise ValueError(
                f"horizon is {horizon} with time_encoding {time_encoding!r}, which tells the time of the "
                "next event only: set horizon to 1, or leave time out"
            )
        self.input_format = InputFormat(
            "next-item",
            max_length,
            anchoring=anchoring,
            time_encoding=time_encoding,
            starts_with_bos=start_token,
        )
        self.least_events = 1 if start_token else 2
        self._horizon = horizon
        self._augmentation = augmentation or Augmentation()
        self.loss_function = loss or FullSoftmax()

    def collate(self, batch: TrainBatch) -> dict[str, Tensor]:
        """Lay sequences out as model input with labels.

        Args:
            batch: B training sequences.

        Returns:
            `input_ids` and `attention_mask` (B, L) int64, and what `recbert.inputs.times` and
            `recbert.inputs.positions` add; `labels` (B, L + 1) int64 with -100 where there is no label. The
            label of position i stands at i + 1 and column 0, the place of `[BOS]` where there is one, has
            none: this is how the Trainer counts labels for causal models.
        """
        batch = self._start(self._augmentation.rearrange(batch))
        present = present_places(batch.lengths)  # (B, L + 1)
        is_input = present[:, 1:]  # a position is an input when an event follows
        seen = np.where(self._augmentation.hidden(batch) & (batch.tokens != BOS_ID), MASK_ID, batch.tokens)
        labels = lay_out(self._labels(batch), present, -100)
        labels[:, 0] = -100
        inputs = {
            "input_ids": torch.from_numpy(np.where(is_input, lay_out(seen, present, PAD_ID)[:, :-1], PAD_ID)),
            "attention_mask": torch.from_numpy(is_input.astype(np.int64)),
            "labels": torch.from_numpy(labels),
        }
        return add_positions(add_training_times(inputs, batch, self.input_format), self.input_format)

    def _start(self, batch: TrainBatch) -> TrainBatch:
        """Cut sequences to L + 1 tokens, the first of which is `[BOS]` where the format has it."""
        most = self.input_format.history_length + 1
        is_cut = batch.lengths > most
        batch = batch.last(most)
        if not self.input_format.starts_with_bos:
            return batch
        # The first event of what is left of a longer history does not follow from its start.
        starts = np.cumsum(batch.lengths) - batch.lengths
        is_target = batch.is_target.copy()
        is_target[starts[is_cut]] = False
        return batch._replace(is_target=is_target).prepend(BOS_ID)

    def _labels(self, batch: TrainBatch) -> NDArray[np.int64]:
        """Give for each event (T,) what is predicted from those before it, -100 for nothing."""
        labels = np.where(batch.is_target, batch.tokens, -100)
        if self._horizon == 1:
            return labels
        present = present_places(batch.lengths)
        left = batch.lengths[:, None] - np.arange(present.shape[1])  # (B, L + 1) events from here to the end
        steps = uniform(batch, left, _AHEAD) * np.minimum(left, self._horizon)
        chosen = np.arange(len(labels)) + steps.astype(np.int64)[present]
        return np.where(batch.is_target, labels[chosen], -100)

    def loss(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        """Sum the loss over the labels.

        Args:
            hidden: (B, L, D) hidden states.
            weight: (V, D) item matrix.
            bias: (V,) or None.
            labels: (B, L + 1) as `collate` gives them.

        Returns:
            A scalar, in nats.
        """
        hidden, labels, rows = labelled(hidden, labels[:, 1:])
        return self.loss_function(hidden, weight, bias, labels, rows)
