"""The positions that have a label."""

import torch
from torch import Tensor


def labelled(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gather the labelled positions.

    Args:
        hidden: (B, L, D) hidden states.
        labels: (B, L) token ids, -100 where there is no label.

    Returns:
        hidden: (N, D).
        labels: (N,).
        rows: (N,) the sequence of each label, from 0 to B - 1, ascending.
    """
    places = torch.nonzero(labels.flatten() != -100).squeeze(1)  # (N,)
    return hidden.flatten(0, 1)[places], labels.flatten()[places], places // labels.shape[1]
