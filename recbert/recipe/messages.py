"""What the parser complains about, in the words of a recipe, with the nearest valid name."""

import dataclasses
import difflib
import re
import types
import typing
from typing import Any

from recbert.recipe.sections import Recipe

_FLAGS = ("config", "json")


def explain(message: str) -> str:
    """Say what is wrong with a recipe.

    Args:
        message: jsonargparse's message.

    Returns:
        One line that names the key and what is allowed.
    """
    stray = re.search(r"unrecognized arguments: (\S+)", message)
    if stray is not None and not stray[1].startswith("--"):
        return f"unknown argument {stray[1]!r}: options have the form --section.name VALUE"
    if stray is not None:
        return _explain_unknown(stray[1].removeprefix("--").partition("=")[0])
    place = re.match(r"Parser key \"([\w.]+)\":", message)
    unknown = re.search(r"(?:Group '([\w.]+)' does not accept option|Option) '([\w.\-]+)'", message)
    if unknown is not None:
        parent = unknown[1] or (place and place[1])
        return _explain_unknown(f"{parent}.{unknown[2]}" if parent else unknown[2])
    if place is not None and (wrong := _explain_type(place[1], message)):
        return wrong
    return " ".join(message.split())


def valid_names() -> list[str]:
    """Give the dotted name of every key that a recipe may have, sections included."""
    return sorted({*_names_of(Recipe), *_FLAGS} - {"text"})


def _explain_unknown(key: str) -> str:
    """Suggest the nearest valid name: in the key's own section if that exists, else anywhere."""
    names = valid_names()
    parent, _, leaf = key.rpartition(".")
    siblings = [name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == parent]
    near = [
        f"{parent}.{name}" if parent else name for name in difflib.get_close_matches(leaf, siblings, 1, 0.5)
    ]
    near = near or ([] if siblings else difflib.get_close_matches(key, names, 1, 0.5))
    if near:
        return f"the recipe has the unknown key {key!r}: did you mean {near[0]!r}?"
    allowed = siblings if parent and siblings else [name for name in names if "." not in name]
    return f"the recipe has the unknown key {key!r}: allowed are {', '.join(allowed)}"


def _explain_type(key: str, message: str) -> str | None:
    """Say which types and values a key may have."""
    given = re.search(r"(?:Got value|Given value): (.*)\Z", message, re.DOTALL)
    expected = re.findall(r"Expected an? (.+?)(?:\. Got value|\n|\Z)", message)
    if "Not a valid subclass of" in message:
        expected.insert(0, "a section of names and values")
    if given is None or not expected:
        return None
    allowed = " or ".join(dict.fromkeys(_plain_type(name) for name in expected))
    return f"{key} is {given[1].strip()!r}: it must be {allowed}"


def _plain_type(name: str) -> str:
    """Give a type as people call it."""
    name = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", name).replace("typing.", "")
    choices = re.fullmatch(r"Literal\[(.*)\]", name)
    if choices is not None:
        return f"one of {choices[1]}"
    return {
        "int": "a whole number",
        "float": "a number",
        "str": "text",
        "bool": "true or false",
        "NoneType": "null",
        "tuple with 2 elements": "a list of 2 values",
        "tuple with 3 elements": "a list of 3 values",
    }.get(name, name)


def _names_of(config: type[Any], prefix: str = "") -> list[str]:
    """List the fields of a dataclass and, dotted, of the dataclasses in it."""
    hints = typing.get_type_hints(config)
    names = []
    for field in dataclasses.fields(config):
        name = f"{prefix}{field.name}"
        names.append(name)
        for kind in _parts_of(hints[field.name]):
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                names += _names_of(kind, f"{name}.")
    return names


def _parts_of(hint: Any) -> tuple[Any, ...]:
    """Give the members of a union, or the type itself."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if is_union else (hint,)
