"""From a checkpoint to recommendations: raw item ids in, raw item ids and scores out."""

from recbert.recommender.loading import load_weights
from recbert.recommender.recommender import Recommender

__all__ = ["Recommender", "load_weights"]
