"""Old items that a new one is like, by the words that describe them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Start = Literal["mean", "neighbours"]
"""Where the row of a new item begins: at the mean of all items, or of those with most words in common."""
NEIGHBOURS = 10
"""How many these are, unless the caller says otherwise."""

_WORD = re.compile(r"\w+")
_CELLS_AT_ONCE = 1 << 24


def find_neighbours(new: Sequence[str], old: Sequence[str], most: int) -> NDArray[np.int64]:
    """Find the old items whose words are closest to those of each new one.

    The closeness is the cosine of vectors with `log((1 + items) / (1 + items with the word)) + 1` for each
    word of an item, a word counted once: titles are too short for more. Words of new items alone count for
    nothing. Salton and Buckley, "Term-weighting approaches in automatic text retrieval", 1988.

    Args:
        new: words of N new items, such as title and categories in one string.
        old: words of the V items that are there.
        most: how many neighbours at most, K; of equally close ones those that come first.

    Returns:
        (N, K) indices into `old`, the closest first; -1 where there are no more with a word in common.
    """
    words = {word: number for number, word in enumerate(sorted({w for text in old for w in _words(text)}))}
    found = np.full((len(new), most), -1, dtype=np.int64)
    if not words:
        return found
    there = _word_matrix(old, words)  # (V, W)
    held = np.bincount(there.indices()[1].numpy(), minlength=len(words))
    weights = torch.from_numpy(np.log((1 + len(old)) / (1 + held)) + 1).float()
    of_old = _unit_rows(there, weights)
    of_new = _unit_rows(_word_matrix(new, words), weights)
    kept = min(most, len(old))
    block = max(1, _CELLS_AT_ONCE // max(len(old), len(words)))
    for start in range(0, len(new), block):
        rows = torch.arange(start, min(start + block, len(new)))
        closeness = torch.sparse.mm(of_old, of_new.index_select(0, rows).to_dense().T).T  # (b, V)
        best, places = closeness.sort(dim=1, descending=True, stable=True)
        places = places[:, :kept].masked_fill(best[:, :kept] <= 0, -1)
        found[start : start + len(rows), :kept] = places.numpy()
    return found


def _words(text: str) -> set[str]:
    """Give the words of a text in lower case."""
    return set(_WORD.findall(text.lower()))


def _word_matrix(texts: Sequence[str], words: dict[str, int]) -> Tensor:
    """Give a sparse (N, W) matrix with 1 where a text has a word."""
    cells = [(row, words[word]) for row, text in enumerate(texts) for word in _words(text) if word in words]
    places = torch.tensor(sorted(cells), dtype=torch.int64).reshape(-1, 2).T
    size = (len(texts), len(words))
    return torch.sparse_coo_tensor(
        places, torch.ones(places.shape[1]), size, is_coalesced=True, check_invariants=True
    )


def _unit_rows(matrix: Tensor, weights: Tensor) -> Tensor:
    """Weigh the columns of a sparse matrix of ones and bring its rows to length 1."""
    rows, columns = matrix.indices()
    values = weights[columns]
    lengths = torch.zeros(matrix.shape[0]).index_add_(0, rows, values**2).sqrt()
    return torch.sparse_coo_tensor(
        matrix.indices(), values / lengths[rows], matrix.shape, is_coalesced=True, check_invariants=True
    )
