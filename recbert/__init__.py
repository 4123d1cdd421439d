"""Sequential recommendation on the Hugging Face stack: histories in, plain transformers checkpoints out.

The names below are all there is to import from the top. Each is loaded at its first use, so that
``import recbert`` itself costs milliseconds and has no side effect.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from recbert.adapters import add_lora
    from recbert.evaluation import RankingMetrics
    from recbert.events import clean_events, read_events
    from recbert.models import build_model
    from recbert.objectives import MaskedItem, NextItem
    from recbert.recommender import Recommender
    from recbert.sequences import build_sequences
    from recbert.splits import split_events
    from recbert.tokenizer import ItemTokenizer
    from recbert.training import RecTrainer, RecTrainingArguments

__all__ = [
    "ItemTokenizer",
    "MaskedItem",
    "NextItem",
    "RankingMetrics",
    "RecTrainer",
    "RecTrainingArguments",
    "Recommender",
    "add_lora",
    "build_model",
    "build_sequences",
    "clean_events",
    "read_events",
    "split_events",
]

_ROOMS = {
    "ItemTokenizer": "tokenizer",
    "MaskedItem": "objectives",
    "NextItem": "objectives",
    "RankingMetrics": "evaluation",
    "RecTrainer": "training",
    "RecTrainingArguments": "training",
    "Recommender": "recommender",
    "add_lora": "adapters",
    "build_model": "models",
    "build_sequences": "sequences",
    "clean_events": "events",
    "read_events": "events",
    "split_events": "splits",
}


def __getattr__(name: str) -> object:
    """Load a public name from its room at first use."""
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names beside what is already loaded."""
    return sorted({*globals(), *__all__})
