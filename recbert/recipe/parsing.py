"""Parsing: YAML files and the options that override them, into a recipe."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from recbert.recipe.messages import explain
from recbert.recipe.sections import AdapterConfig, Recipe

_SECTIONS = {
    field.name: field.type for field in dataclasses.fields(Recipe) if field.name not in ("adapter", "text")
}

_SECRETS = ("hub_token",)
"""Training arguments that no checkpoint may carry."""


def recipe_parser(command: str) -> ArgumentParser:
    """Build the parser of a command that takes a recipe.

    Args:
        command: the verb, for the usage line.
    """
    parser = ArgumentParser(prog=f"recbert {command}", allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="config", help="recipe in YAML; later options override it")
    for name, section in _SECTIONS.items():
        parser.add_class_arguments(section, name)
    parser.add_argument("--adapter", type=AdapterConfig | None, default=None)
    return parser


def load_recipe(parser: ArgumentParser, arguments: Sequence[str]) -> tuple[Recipe, Namespace]:
    """Read a recipe and the options that override it.

    Args:
        parser: from `recipe_parser`, perhaps with further flags.
        arguments: the command line after the verb.

    Returns:
        recipe: the validated recipe.
        options: everything that was parsed, further flags included.

    Raises:
        ValueError: an unknown key (the nearest valid name is suggested), a wrong type, or a missing file.
    """
    try:
        options = parser.parse_args(list(arguments))
    except ArgumentError as error:
        raise ValueError(explain(str(error))) from error
    _check_sections(options)
    built = parser.instantiate(options)
    sections = {name: built[name] for name in _SECTIONS}
    text = _resolved_text(options, parser.get_defaults())
    return Recipe(**sections, adapter=built.adapter, text=text), options


def _check_sections(options: Namespace) -> None:
    """Refuse a section that is one value: jsonargparse lets it through."""
    for name in (*_SECTIONS, "data.clean"):
        if not isinstance(options[name], Namespace):
            raise ValueError(
                f"{name} is {options[name]!r}: it must hold names and values, such as `name: value`"
            )


def _resolved_text(options: Namespace, defaults: Namespace) -> str:
    """Give the recipe as YAML; of the training arguments only those that differ from recbert's defaults.

    Args:
        options: what was parsed.
        defaults: what no recipe at all gives.
    """
    values: dict[str, Any] = {name: options[name].as_dict() for name in _SECTIONS}
    usual = defaults.training.as_dict()
    values["training"] = {
        name: value
        for name, value in values["training"].items()
        if value != usual.get(name) and name not in _SECRETS
    }
    if not values["tune"]["space"]:
        del values["tune"]
    if options.adapter is not None:
        values["adapter"] = options.adapter.as_dict()
    plain = json.loads(json.dumps(values))  # YAML has no tuples
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def data_sections(text: str) -> dict[str, dict[str, Any]]:
    """Give the sections of a recipe that prepared data depends on, for its manifest.

    Args:
        text: a resolved recipe as YAML.
    """
    values = yaml.safe_load(text)
    return {name: values[name] for name in ("data", "split", "sequences")}


def replace_sections(text: str, sections: Mapping[str, Any]) -> str:
    """Put other sections into a recipe.

    Args:
        text: a resolved recipe as YAML.
        sections: values by the name of the section.
    """
    return yaml.safe_dump({**yaml.safe_load(text), **sections}, sort_keys=False, allow_unicode=True)
