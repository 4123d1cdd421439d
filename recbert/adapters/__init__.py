"""LoRA adapters: added to a model, saved, loaded onto their base, many at a time, merged away.

The only room that imports peft.
"""

from recbert.adapters.lora import add_lora
from recbert.adapters.residents import Residents
from recbert.adapters.saved import (
    adapter_base,
    base_name,
    is_adapted,
    load_adapter,
    merge_adapter,
    parameter_counts,
    save_adapter,
)

__all__ = [
    "Residents",
    "adapter_base",
    "add_lora",
    "base_name",
    "is_adapted",
    "load_adapter",
    "merge_adapter",
    "parameter_counts",
    "save_adapter",
]
