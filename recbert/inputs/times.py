"""Times as model input: token types, clock tokens and rotary positions."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbert.checkpoint import InputFormat
from recbert.inputs.draws import uniform
from recbert.inputs.padding import TokenIds, lay_out, present_places
from recbert.inputs.training import TrainBatch
from recbert.tokenizer import PAD_ID
from recbert.tokenizer.times import gap_ids, hour_ids, weekday_ids

_TIMELESS_SHARE = 0.1
"""Share of the training rows that are seen without their times, so that a query may come without them."""
_TIMELESS = 255
"""What `uniform` draws these rows for."""
_ROTARY_SCALE = 0.5
"""Positions that a doubling of a gap is worth: a second is one event apart, a week nearly eleven."""


def add_training_times(
    inputs: dict[str, Tensor], batch: TrainBatch, input_format: InputFormat
) -> dict[str, Tensor]:
    """Put the times of training sequences into their inputs; a tenth of the rows goes without.

    Args:
        inputs: `input_ids` and `attention_mask` (B, L), and `labels`.
        batch: the B sequences as they were laid out: of L + 1 tokens for `next-item`, of L for `masked-item`.
        input_format: says how, if at all.

    Returns:
        The inputs with what `add_times` adds. With a clock the labels stand at the clocks.
    """
    if input_format.time_encoding is None or batch.times is None:
        return inputs
    timeless = uniform(batch, np.zeros((1, 1), dtype=np.int64), _TIMELESS)[:, 0] < _TIMELESS_SHARE
    times = np.where(np.repeat(timeless, batch.lengths), np.nan, batch.times)
    return add_times(inputs, times, batch.lengths, input_format)


def add_times(
    inputs: dict[str, Tensor], times: NDArray[np.float64], lengths: TokenIds, input_format: InputFormat
) -> dict[str, Tensor]:
    """Put times into model inputs.

    Position i of a `next-item` input is given the time from its event to the next one, the one to predict;
    the event to predict last is the request. Position i of a `masked-item` input is given the time since the
    event before, so that the appended [MASK] has that from the last event to the request.

    - `gaps`: `token_type_ids`, see `recbert.tokenizer.times`; those of [PAD] where there is nothing.
    - `clock`, `gaps+clock`: behind each position stands another one whose token is the hour, and whose type
      the weekday, of the event to predict, which is predicted there.
    - `rotary`: `position_ids`, from each position to the next `1 + log2(gap + 1) / 2`; 1 where unknown.
    - `rotary-axes`: order, the sum of `log2(gap + 1) / 2`, and the hour of the day, each on its own axis.

    Args:
        inputs: `input_ids` and `attention_mask` (B, L) int64, right-padded, and maybe `labels`.
        times: (T,) epoch seconds of B rows, NaN where unknown; the event to predict last counted in.
        lengths: (B,) times of each row: one more than its positions for `next-item`, as many for
            `masked-item`.
        input_format: says how.
    """
    rows = lay_out(times, present_places(lengths), np.nan)  # (B, L + 1), or (B, L)
    before = rows[:, :-1] if input_format.objective == "next-item" else _shift(rows)
    after = rows[:, 1:] if input_format.objective == "next-item" else rows
    present = inputs["attention_mask"].numpy().astype(np.bool_)  # (B, L)
    encoding = input_format.time_encoding
    if encoding in ("rotary", "rotary-axes"):
        positions = _rotary_positions(after - before, after, encoding == "rotary-axes")
        return {**inputs, "position_ids": torch.from_numpy(positions)}
    gaps = np.where(present, gap_ids(after - before), PAD_ID)
    if encoding == "gaps":
        return {**inputs, "token_type_ids": torch.from_numpy(gaps)}
    clocks = np.where(present, hour_ids(after), PAD_ID), np.where(present, weekday_ids(after), PAD_ID)
    return _insert_clocks(inputs, *clocks, gaps if encoding == "gaps+clock" else np.zeros_like(gaps))


def _shift(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the time of the event before each one, (B, L); of the first none is known."""
    return np.concatenate([np.full((len(rows), 1), np.nan), rows[:, :-1]], axis=1)


def _rotary_positions(
    gaps: NDArray[np.float64], after: NDArray[np.float64], on_axes: bool
) -> NDArray[np.float32]:
    """Give positions (B, L) from gaps and moments (B, L), or one set for each of three axes (3, B, L)."""
    elapsed = _ROTARY_SCALE * np.log2(np.maximum(np.nan_to_num(gaps), 0) + 1)
    if not on_axes:
        return np.cumsum(1 + elapsed, axis=1).astype(np.float32)
    order = np.broadcast_to(np.arange(gaps.shape[1]), gaps.shape)
    hours = np.nan_to_num(after) % 86_400 / 3600
    return np.stack([order, np.cumsum(elapsed, axis=1), hours]).astype(np.float32)


def _insert_clocks(
    inputs: dict[str, Tensor], hours: TokenIds, weekdays: TokenIds, gaps: TokenIds
) -> dict[str, Tensor]:
    """Put a clock behind every position, all (B, L), and labels (B, L + 1) to the clocks."""
    found = {
        "input_ids": _alternate(inputs["input_ids"], torch.from_numpy(hours)),
        "token_type_ids": _alternate(torch.from_numpy(gaps), torch.from_numpy(weekdays)),
        "attention_mask": inputs["attention_mask"].repeat_interleave(2, dim=1),
    }
    if "labels" in inputs:
        labels = inputs["labels"][:, 1:]
        none = torch.full_like(labels, -100)
        # The label of a position stands one column further on, see `NextItem.collate`.
        found["labels"] = torch.cat([none[:, :1], _alternate(none, labels)], dim=1)
    return {**inputs, **found}


def _alternate(first: Tensor, second: Tensor) -> Tensor:
    """Give the columns of two (B, L) in turn, (B, 2 L)."""
    return torch.stack([first, second], dim=2).flatten(1)
