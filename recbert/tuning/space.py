"""What is searched: for each key a list of values, or a range of numbers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

Value = float | int | bool | str | None


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low: the smallest.
        high: the largest.
        log: whether equal ratios, not equal differences, are equally likely.
        whole: whether only whole numbers are drawn.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False


Dimension = Range | list[Value]


def read_space(space: Mapping[str, Any]) -> dict[str, Dimension]:
    """Check a space as it stands in a recipe.

    Args:
        space: by dotted key either a list of values or `low`, `high` and, if wanted, `log` and `int`.

    Raises:
        ValueError: it is empty, or one of its dimensions is neither.

    >>> read_space({"model.dropout": [0.1, 0.2], "model.hidden_size": {"low": 32, "high": 256, "int": True}})
    {'model.dropout': [0.1, 0.2], 'model.hidden_size': Range(low=32, high=256, log=False, whole=True)}
    """
    if not space:
        raise ValueError(
            "tune.space is empty: name keys of the recipe with their values, such as "
            "`training.learning_rate: {low: 1e-4, high: 1e-2, log: true}`"
        )
    return {key: _read_dimension(key, content) for key, content in space.items()}


def corners(dimension: Dimension) -> list[Value]:
    """Give the values by which a dimension can be checked: all of a list, the ends of a range."""
    return [dimension.low, dimension.high] if isinstance(dimension, Range) else dimension


def _read_dimension(key: str, content: Any) -> Dimension:
    """Check one dimension."""
    if isinstance(content, list):
        if not content or not all(isinstance(value, Value) for value in content):
            raise ValueError(
                f"tune.space.{key} is {content!r}: list numbers, texts, true, false or null, at least one"
            )
        return content
    allowed = {"low", "high", "log", "int"}
    if not isinstance(content, dict) or not {"low", "high"} <= content.keys() <= allowed:
        raise ValueError(
            f"tune.space.{key} is {content!r}: give a list of values, or low and high (and log, int)"
        )
    ends = [_read_number(key, content[end]) for end in ("low", "high")]
    log, whole = content.get("log", False), content.get("int", False)
    if not isinstance(log, bool) or not isinstance(whole, bool):
        raise ValueError(f"tune.space.{key} is {content!r}: log and int are true or false")
    if whole and any(end != int(end) for end in ends):
        raise ValueError(f"tune.space.{key} is {content!r}: with int, low and high are whole numbers")
    low, high = (int(end) for end in ends) if whole else ends
    if low > high or (log and low <= 0):
        raise ValueError(
            f"tune.space.{key} is {content!r}: low must not exceed high, and log needs low above 0"
        )
    return Range(low, high, log, whole)


def _read_number(key: str, value: Any) -> float:
    """Give the end of a range; YAML takes `1e-4` for a text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"tune.space.{key} has the end {value!r}: give a number") from None
