"""A recipe: YAML and command line into validated dataclasses, one section a room, in the flow's order."""

from recbert.recipe.data import CohortConfig, DataConfig, SequencesConfig, SplitConfig
from recbert.recipe.parsing import data_sections, load_recipe, recipe_parser, replace_sections
from recbert.recipe.sections import (
    AdapterConfig,
    EvaluationConfig,
    ModelConfig,
    ObjectiveConfig,
    Recipe,
    TuneConfig,
)

__all__ = [
    "AdapterConfig",
    "CohortConfig",
    "DataConfig",
    "EvaluationConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "Recipe",
    "SequencesConfig",
    "SplitConfig",
    "TuneConfig",
    "data_sections",
    "load_recipe",
    "recipe_parser",
    "replace_sections",
]
