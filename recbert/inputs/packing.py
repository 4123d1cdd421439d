"""A padded batch without its padding, for attention kernels that take rows of different length."""

import torch
from torch import Tensor


def pack(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the rows of a next-item batch one after another into a single row.

    `position_ids` begin anew with each row, which is how transformers' attention (variable-length flash
    attention, or a mask made for the purpose elsewhere) keeps the rows apart.

    Args:
        batch: `input_ids` and `attention_mask` (B, L), `labels` (B, L + 1), as `NextItem.collate` gives them,
            and maybe `token_type_ids` (B, L).

    Returns:
        `input_ids`, `position_ids` and maybe `token_type_ids` (1, T) and `labels` (1, T + 1), T the tokens of
        the batch; no mask.
    """
    present = batch["attention_mask"].bool()
    places = torch.arange(present.shape[1]).expand_as(present)
    labels = batch["labels"][:, 1:][present]
    types = {name: batch[name][present].unsqueeze(0) for name in ("token_type_ids",) if name in batch}
    return {
        **types,
        "input_ids": batch["input_ids"][present].unsqueeze(0),
        "position_ids": places[present].unsqueeze(0),
        "labels": torch.cat([labels.new_full((1,), -100), labels]).unsqueeze(0),
    }
