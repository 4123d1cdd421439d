"""Count baselines: what has to be beaten. Each is fitted on the training part and scores like a model does.

A scorer gives `scores(histories) -> (B, num_items)` with higher meaning better; see each class for its
formula.
"""

from recbert.baselines.item_knn import ItemKNN
from recbert.baselines.markov import Markov
from recbert.baselines.popularity import Popularity, RecentPopularity
from recbert.baselines.rules import SequentialRules

__all__ = ["ItemKNN", "Markov", "Popularity", "RecentPopularity", "SequentialRules"]
