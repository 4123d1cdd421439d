"""Next-item prediction: every position predicts the event after it."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from recbert.checkpoint import InputFormat
from recbert.inputs import TrainRow, pad_right
from recbert.objectives.losses import full_softmax, labelled
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
    """

    least_events = 2

    def __init__(self, tokenizer: ItemTokenizer, max_length: int = 200) -> None:
        self.tokenizer = tokenizer
        self.input_format = InputFormat("next-item", max_length)

    def collate(self, rows: Sequence[TrainRow]) -> dict[str, Tensor]:
        """Lay rows out as model input with labels.

        Args:
            rows: B training sequences.

        Returns:
            `input_ids` and `attention_mask` (B, L) int64; `labels` (B, L + 1) int64 with -100 where there is
            no label. The label of position i stands at i + 1 and column 0 has none: this is how the Trainer
            counts labels for causal models.
        """
        keep = self.input_format.max_length + 1
        tokens = [row.tokens[-keep:] for row in rows]
        labels = [np.where(row.is_target, row.tokens, -100)[-keep:] for row in rows]
        labels = [np.append(-100, label[1:]) for label in labels]
        input_ids, attention_mask = pad_right([row[:-1] for row in tokens], PAD_ID)
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": pad_right(labels, -100)[0],
        }

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
        return full_softmax(hidden, weight, bias, labels)
