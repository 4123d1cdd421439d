"""Which families take which time encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbert.models.families import FAMILIES, OTHER, Family

if TYPE_CHECKING:
    from recbert.checkpoint import TimeEncoding


def takes_types(time_encoding: TimeEncoding | None) -> bool:
    """Whether an encoding needs `token_type_ids`."""
    return time_encoding in ("gaps", "clock", "gaps+clock")


def check_time_encoding(family: str, time_encoding: TimeEncoding | None) -> None:
    """Checks that a family has what a time encoding needs.

    Raises:
        ValueError: it has not; the message names the families that have.
    """
    if time_encoding is None or _takes(FAMILIES.get(family, OTHER), time_encoding):
        return
    able = [name for name, row in FAMILIES.items() if _takes(row, time_encoding)]
    other: TimeEncoding = "rotary" if takes_types(time_encoding) else "gaps"
    instead = [name for name, row in FAMILIES.items() if _takes(row, other)]
    raise ValueError(
        f"family={family!r} does not take time as {time_encoding!r}: choose {', '.join(able)}; or "
        f"objective.time {other!r}, which {', '.join(instead)} take"
    )


def axes_settings(head_size: int, layers: int) -> dict[str, object]:
    """The configuration of a family with three sets of positions: frequencies in turn, attention everywhere.

    Raises:
        ValueError: heads too narrow for a frequency on each axis.
    """
    frequencies = head_size // 2
    if frequencies < 3:
        raise ValueError(
            f"hidden_size / num_attention_heads is {head_size}: three axes of positions need at least 6"
        )
    second, third = len(range(1, frequencies, 3)), len(range(2, frequencies, 3))
    return {
        "layer_types": ["full_attention"] * layers,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 1.0,
            "mrope_section": [frequencies - second - third, second, third],
        },
    }


def _takes(row: Family, time_encoding: TimeEncoding) -> bool:
    if takes_types(time_encoding):
        return row.token_types is not None
    return row.rotary_axes >= (3 if time_encoding == "rotary-axes" else 1)
