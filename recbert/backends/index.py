"""The best items by approximate search, for catalogues past about a million items."""

from __future__ import annotations

import importlib
import logging
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

try:
    faiss: Any = importlib.import_module("faiss")
except ImportError:  # an extra
    faiss = None

logger = logging.getLogger(__name__)

_LISTS_PER_ROOT = 4
_POINTS_PER_LIST = 64
_ROUNDS = 10


class ItemIndex:
    """Finds items of high score without scoring all of them.

    The items are parted into about 4 sqrt(V) lists by k-means; a query looks through the lists whose centres
    score highest (an inverted file: Jegou et al., "Product quantization for nearest neighbor search", 2011;
    here with whole vectors, by faiss). How many lists it looks through is set by `tune`, all of them until
    then: exact, but slower than a plain product. Building takes about a minute a million items of width 64.

    Args:
        weight: (V, D) fp32 item matrix.
        bias: (V,) fp32, or None.

    Raises:
        ImportError: faiss is not installed.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        if faiss is None:
            raise ImportError("approximate search needs faiss: pip install 'recbert[ann]'")
        self._has_bias = bias is not None
        table = weight if bias is None else torch.cat([weight, bias[:, None]], 1)  # (V, D or D + 1)
        vectors = np.ascontiguousarray(table.detach().float().cpu().numpy())
        self.num_items, width = vectors.shape
        self.lists = max(
            1, min(self.num_items // _POINTS_PER_LIST, _LISTS_PER_ROOT * math.isqrt(self.num_items))
        )
        self._centres = faiss.IndexFlatIP(width)  # the index keeps a bare pointer to it
        self._index: Any = faiss.IndexIVFFlat(self._centres, width, self.lists, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.niter, self._index.cp.max_points_per_centroid = _ROUNDS, _POINTS_PER_LIST
        self._index.train(vectors)
        self._index.add(vectors)
        self._index.nprobe = self.lists

    def search(self, vectors: Tensor, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """List items of high score.

        Args:
            vectors: (B, D) hidden states.
            k: items wanted.

        Returns:
            scores: (B, K) with K = min(k, V), the highest first.
            items: (B, K) item indices, -1 where the lists that were looked through hold no more.
        """
        queries = vectors.detach().float().cpu()
        if self._has_bias:
            queries = torch.cat([queries, queries.new_ones(len(queries), 1)], 1)
        scores, items = self._index.search(np.ascontiguousarray(queries.numpy()), min(k, self.num_items))
        return scores, items

    def tune(self, vectors: Tensor, *, k: int, recall: float) -> float:
        """Look through as few lists as find a share of the truly best items; the log names the measured one.

        Args:
            vectors: (B, D) hidden states like those to come.
            k: length of the lists of best items.
            recall: the share of them to find on average, above 0 and at most 1.

        Returns:
            The share that was found on `vectors`.
        """
        self._index.nprobe = self.lists
        _, best = self.search(vectors, k)
        probes, found = 1, 0.0
        while True:
            self._index.nprobe = probes
            _, items = self.search(vectors, k)
            found = float(np.mean([np.isin(row, near).mean() for row, near in zip(best, items, strict=True)]))
            if found >= recall or probes >= self.lists:
                break
            probes = min(2 * probes, self.lists)
        logger.info(
            "Approximate search looks through %d of %d lists and finds %.2f %% of the %d best items of %d "
            "histories.",
            probes,
            self.lists,
            100 * found,
            k,
            len(vectors),
        )
        return found
