"""From a checkpoint to recommendations: raw item ids in, raw item ids and scores out."""

from recbert.recommender.blend_choice import Choice, try_blends
from recbert.recommender.blending import MOST_RULES, BlendedScorer, save_blend
from recbert.recommender.compacting import compact_checkpoint
from recbert.recommender.growing import item_words, nearest_items
from recbert.recommender.loading import load_weights
from recbert.recommender.recommender import Recommender

__all__ = [
    "MOST_RULES",
    "BlendedScorer",
    "Choice",
    "Recommender",
    "compact_checkpoint",
    "item_words",
    "load_weights",
    "nearest_items",
    "save_blend",
    "try_blends",
]
