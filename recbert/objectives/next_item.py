"""Next-item prediction: every position predicts the event after it."""

import numpy as np
import torch
from torch import Tensor

from recbert.checkpoint import InputFormat, TimeEncoding
from recbert.inputs import TrainBatch, add_training_times, lay_out, present_places
from recbert.objectives.losses import FullSoftmax, SampledSoftmax, labelled
from recbert.tokenizer import PAD_ID, ItemTokenizer


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
        loss: `FullSoftmax`, which None stands for, or `SampledSoftmax` for catalogues of hundreds of
            thousands of items.
    """

    least_events = 2

    def __init__(
        self,
        tokenizer: ItemTokenizer,
        max_length: int = 200,
        *,
        time_encoding: TimeEncoding | None = None,
        loss: FullSoftmax | SampledSoftmax | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.input_format = InputFormat("next-item", max_length, time_encoding=time_encoding)
        self._loss = loss or FullSoftmax()

    def collate(self, batch: TrainBatch) -> dict[str, Tensor]:
        """Lay sequences out as model input with labels.

        Args:
            batch: B training sequences.

        Returns:
            `input_ids` and `attention_mask` (B, L) int64; `labels` (B, L + 1) int64 with -100 where there is
            no label. The label of position i stands at i + 1 and column 0 has none: this is how the Trainer
            counts labels for causal models. What a time encoding adds stands in `recbert.inputs.times`.
        """
        batch = batch.last(self.input_format.history_length + 1)
        present = present_places(batch.lengths)  # (B, L + 1)
        tokens = lay_out(batch.tokens, present, PAD_ID)
        is_input = present[:, 1:]  # a position is an input when an event follows
        labels = np.where(lay_out(batch.is_target, present, False), tokens, -100)
        labels[:, 0] = -100
        inputs = {
            "input_ids": torch.from_numpy(np.where(is_input, tokens[:, :-1], PAD_ID)),
            "attention_mask": torch.from_numpy(is_input.astype(np.int64)),
            "labels": torch.from_numpy(labels),
        }
        return add_training_times(inputs, batch, self.input_format)

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
        hidden, labels = labelled(hidden, labels[:, 1:])
        return self._loss(hidden, weight, bias, labels)
