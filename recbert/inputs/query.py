"""The input that asks a model for the next item of each history."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from recbert.checkpoint import InputFormat
from recbert.inputs.moments import Moments
from recbert.inputs.padding import TokenIds, lay_out, present_places, ranges
from recbert.inputs.positions import add_positions
from recbert.inputs.times import add_times
from recbert.tokenizer import BOS_ID, FIRST_ITEM_ID, MASK_ID, PAD_ID


class Query(NamedTuple):
    """A batch of histories as model input.

    Attributes:
        input_ids: (B, L) int64, right-padded.
        attention_mask: (B, L) int64, 1 at real tokens; None where all rows are equally long: they need no
            mask, and attend faster without.
        last: (B,) int64, the position whose hidden state predicts.
        beside: what else the checkpoint's format adds, by the model's argument names; see
            `recbert.inputs.times` and `recbert.inputs.positions`.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    last: torch.Tensor
    beside: Mapping[str, torch.Tensor] = {}  # noqa: RUF012  # nobody writes to it

    def inputs(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Give the arguments of the model's forward, on its device."""
        named = {"input_ids": self.input_ids, "attention_mask": self.attention_mask, **self.beside}
        return {name: values.to(device) for name, values in named.items() if values is not None}


def known_items(history: TokenIds) -> TokenIds:
    """Keep the items of a history that the vocabulary has.

    Args:
        history: (L,) token ids, `[UNK]` for unknown items.
    """
    return history[history >= FIRST_ITEM_ID]


def count_known(histories: Sequence[TokenIds]) -> TokenIds:
    """Count the items of each history that the vocabulary has, (B,).

    Args:
        histories: B arrays of token ids, `[UNK]` for unknown items.
    """
    known = np.concatenate([*histories, []]) >= FIRST_ITEM_ID
    ends = np.cumsum(np.fromiter(map(len, histories), dtype=np.int64, count=len(histories)))
    return np.diff(np.append(0, np.cumsum(known))[ends], prepend=0)


def build_query(
    histories: Sequence[TokenIds], input_format: InputFormat, moments: Moments | None = None
) -> Query:
    """Build the input that asks a model for the next item of each history.

    Items that the vocabulary does not have are skipped (their row was never trained); the latest
    `input_format.history_length` of the others stay, behind `[BOS]` where the format has it. A history with
    none of them is refused: what stands before every history says less about it than the items' counts.

    Args:
        histories: B arrays of token ids, the earliest event first.
        input_format: the checkpoint's format.
        moments: when the events happened and when the query is asked; needed only for a format with a time
            encoding, for which None stands for unknown times.

    Raises:
        ValueError: a history has no known item.
    """
    counts = count_known(histories)
    if not counts.all():
        raise ValueError("a history has no item that the vocabulary knows: answer it by popularity instead")
    lengths = np.minimum(counts, input_format.history_length)
    flat = np.concatenate(histories, dtype=np.int64)
    places = np.flatnonzero(flat >= FIRST_ITEM_ID)[ranges(np.cumsum(counts) - lengths, lengths)]
    latest, events = flat[places], lengths
    if input_format.starts_with_bos:
        latest = np.insert(latest, np.cumsum(lengths) - lengths, BOS_ID)
        lengths = lengths + 1
    if input_format.append_mask:
        latest = np.insert(latest, np.cumsum(lengths), MASK_ID)
        lengths = lengths + 1
    present = present_places(lengths)
    input_ids, last = torch.from_numpy(lay_out(latest, present, PAD_ID)), torch.from_numpy(lengths - 1)
    encoding = input_format.time_encoding
    is_plain = encoding is None and input_format.anchoring == "left"
    if is_plain and present.all():
        return Query(input_ids, None, last)
    mask = torch.from_numpy(present.astype(np.int64))
    if is_plain:
        return Query(input_ids, mask, last)
    inputs = add_positions({"input_ids": input_ids, "attention_mask": mask}, input_format)
    if encoding is not None:
        if moments is None:
            moments = Moments.unknown([len(history) for history in histories])
        times = np.concatenate(moments.times, dtype=np.float64)[places]
        times = np.insert(times, np.cumsum(events), moments.at)
        events = events + 1
        if input_format.starts_with_bos:
            times = np.insert(times, np.cumsum(events) - events, np.nan)
            events = events + 1
        inputs = add_times(inputs, times, events, input_format)
    return _beside_query(inputs, last, input_format)


def _beside_query(inputs: dict[str, torch.Tensor], last: torch.Tensor, input_format: InputFormat) -> Query:
    """Make a query of inputs that hold more than token ids and a mask."""
    input_ids, mask = inputs.pop("input_ids"), inputs.pop("attention_mask")
    # Positions that do not count on by 1 would be taken for those of packed sequences without a mask.
    needs_mask = "position_ids" in inputs or not bool(mask.all())
    return Query(
        input_ids, mask if needs_mask else None, 2 * last + 1 if input_format.has_clock else last, inputs
    )
