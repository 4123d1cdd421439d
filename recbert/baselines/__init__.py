"""Count baselines: what has to be beaten. Each is fitted on the training part and scores like a model does.

A scorer gives `scores(histories) -> (B, num_items)` with higher meaning better; see each class for its
formula.
"""

from recbert.baselines.item_knn import ItemKNN
from recbert.baselines.item_vectors import cooccurrence_vectors, tell_apart
from recbert.baselines.links import ItemLinks, limit_links, spread_links
from recbert.baselines.markov import Markov
from recbert.baselines.popularity import Popularity, RecentPopularity
from recbert.baselines.rules import SequentialRules, ask_rules
from recbert.baselines.storage import read_links, write_links

__all__ = [
    "ItemKNN",
    "ItemLinks",
    "Markov",
    "Popularity",
    "RecentPopularity",
    "SequentialRules",
    "ask_rules",
    "cooccurrence_vectors",
    "limit_links",
    "read_links",
    "spread_links",
    "tell_apart",
    "write_links",
]
