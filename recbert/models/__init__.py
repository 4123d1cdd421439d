"""Models: a family's name, sizes and an item vocabulary become a stock transformers model."""

from recbert.models.backbone import build_from_backbone
from recbert.models.build import build_model
from recbert.models.cut import last_only
from recbert.models.families import default_lora_targets, supported_families
from recbert.models.fits import check_fits
from recbert.models.head import (
    freeze_spare_bias,
    hidden_only,
    item_head,
    item_logits,
    item_table,
    spare_biases,
)
from recbert.models.initial import start_items
from recbert.models.ties import TieItems, mirror_items, mirror_signs, untie_items

__all__ = [
    "TieItems",
    "build_from_backbone",
    "build_model",
    "check_fits",
    "default_lora_targets",
    "freeze_spare_bias",
    "hidden_only",
    "item_head",
    "item_logits",
    "item_table",
    "last_only",
    "mirror_items",
    "mirror_signs",
    "spare_biases",
    "start_items",
    "supported_families",
    "untie_items",
]
