"""How scores are computed: all of them by PyTorch, or the best ones by approximate search."""

from recbert.backends.index import ItemIndex
from recbert.backends.scorer import TorchScorer

__all__ = ["ItemIndex", "TorchScorer"]
