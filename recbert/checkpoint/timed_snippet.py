"""The lines of a model card's program that put times into the model's input."""

from typing import NamedTuple

from recbert.checkpoint.info import InputFormat
from recbert.tokenizer import PAD_ID
from recbert.tokenizer.times import (
    FIRST_GAP_ID,
    FIRST_HOUR_ID,
    FIRST_WEEKDAY_ID,
    GAP_BUCKETS,
    UNKNOWN_TIME_ID,
)

ARGUMENTS = (
    "(name, *history), (at, *times) = sys.argv[1::2], map(float, sys.argv[2::2])"
    "  # folder or Hub id, now, item, its time, ..."
)


class TimedLines(NamedTuple):
    """Parts of a program that knows `pairs`, the known items and their times, and `at`.

    Attributes:
        before: what stands in front of the call of the model; it makes `known` and what the call needs.
        call: the arguments of the call.
    """

    before: str
    call: str


def time_lines(input_format: InputFormat, query: str) -> TimedLines:
    """Write the lines for one time encoding.

    Args:
        input_format: a format with one.
        query: the expression of the input ids, made of `known`.
    """
    has_first = input_format.starts_with_bos or input_format.append_mask
    lines = [
        "known, moments = [i for i, _ in pairs], [t for _, t in pairs]"
        f"[-{input_format.history_length}:] + [at]",
        "gaps = [math.log2(max(b - a, 0) + 1) for a, b in zip(moments, moments[1:])]",
    ]
    asked = "moments" if has_first else "moments[1:]"  # when what a position predicts happens
    types = f"{f'[{UNKNOWN_TIME_ID}] + ' if has_first else ''}"
    types += f"[{FIRST_GAP_ID} + min({GAP_BUCKETS - 1}, int(gap)) for gap in gaps]"
    mask = "attention_mask=torch.ones_like(ids)"
    encoding = input_format.time_encoding
    if encoding == "gaps":
        lines.append(f"ids, types = torch.tensor([{query}]), torch.tensor([{types}])")
        return TimedLines("\n".join(lines), "input_ids=ids, token_type_ids=types")
    if input_format.has_clock:
        first = types if encoding == "gaps+clock" else f"[{PAD_ID}] * len({asked})"
        clock = f"({FIRST_HOUR_ID} + int(t % 86400 // 3600), {FIRST_WEEKDAY_ID} + (int(t // 86400) + 3) % 7)"
        lines += [
            f"pairs = [((i, g), {clock}) for i, g, t in zip({query}, {first}, {asked})]",
            "ids, types = torch.tensor(pairs).flatten(0, 1).T.unsqueeze(1)",
        ]
        return TimedLines("\n".join(lines), "input_ids=ids, token_type_ids=types")
    if encoding == "rotary":
        steps = f"{'[1] + ' if has_first else ''}[1 + gap / 2 for gap in gaps]"
        lines.append(
            f"ids, places = torch.tensor([{query}]), torch.tensor([list(itertools.accumulate({steps}))])"
        )
    else:
        steps = f"{'[0] + ' if has_first else ''}[gap / 2 for gap in gaps]"
        axes = f"range(len({asked})), itertools.accumulate({steps}), [t % 86400 / 3600 for t in {asked}]"
        places = f"torch.tensor([[list(map(float, axis))] for axis in ({axes})])"
        lines.append(f"ids, places = torch.tensor([{query}]), {places}")
    return TimedLines("\n".join(lines), f"input_ids=ids, {mask}, position_ids=places")
