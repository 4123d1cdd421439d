"""What to set in a recipe, read off a table of events: where to begin, not where to end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTHS = (10, 20, 50, 100, 200)
"""Steps of `max_length`; 200 is the most that published recipes use, and attention grows with the square."""

_USERS_COVERED = 0.95
"""Share of users whose whole history should fit: the rest has thousands of events and would set the cost."""

_LOST = 0.05
"""Share of events before the last window from which it pays to train on them too."""

_WIDTHS = ((1_000_000, 64, 2), (10_000_000, 128, 3), (None, 256, 3))
"""Events up to which a width and depth do. In the grid of the paper "Time to Split" (2025), NDCG@10 of 64 to
256 wide: +4 % at 0.2 M events (Beauty), +5 % at 1 M (ML-1M), +24 % at 20 M (ML-20M). Two layers were best on
Beauty, three on the others."""

_DROPOUTS = ((30, 0.5), (500, 0.3), (None, 0.1))
"""Events per item up to which a dropout is the best of .1, .3 and .5, in the same grid: Beauty has 16 events
per item, ML-1M 293, ML-20M 1,090."""

_FULL_SOFTMAX = 100_000
"""Items up to which the full softmax is no slower than 256 negatives drawn per position at 256 wide."""

_ROWS, _STEPS = 128, 50
"""Rows of a batch in nearly all published recipes, and the steps that an epoch should have at least."""

_MINUTE_BIN = 35.0
"""Bins of gaps that begin earlier end at 56 seconds or before."""

_DAY_BIN = 50_000.0
"""The bin of one day, 86,400 seconds, begins at 56,234."""

_BULK = 0.5
"""Share of gaps under a minute from which times are those of entering events in bulk."""


def advise(statistics: dict[str, Any], distributions: dict[str, list[list[float]]], ties: int) -> list[str]:
    """Give a line for each choice: the key of the recipe, its value, and why.

    Args:
        statistics: of the cleaned events, see `describe_events`.
        distributions: of the same events.
        ties: events that share user and time with another event.
    """
    events, users, items = (int(statistics[name]) for name in ("events", "users", "items"))
    _, width, layers = _step(_WIDTHS, events)
    _, dropout = _step(_DROPOUTS, events / items)
    per_item = f"{events / items:,.0f} events per item"
    rows = int(2 ** np.clip(np.floor(np.log2(max(users / _STEPS, 1))), 4, np.log2(_ROWS)))
    loss = (
        f"full: {items:,} items are few enough to score them all"
        if items <= _FULL_SOFTMAX
        else f"sampled, with objective.negatives 1024: scoring all {items:,} items at each event is too much"
    )
    return [
        *_advise_length(np.array(distributions["history_lengths"], dtype=np.int64).reshape(-1, 2)),
        f"model.hidden_size: {width}, model.num_hidden_layers: {layers}: enough for {events:,} events; "
        "wider ones gain a few per cent on small data, and more the more there is",
        f"model.dropout: {dropout}: there are {per_item}; the fewer, the sooner they are learnt by heart",
        "model.item_vectors: cooccurrence: items begin next to what they are taken with, which costs seconds "
        "and saves half of the epochs",
        f"objective.loss: {loss}",
        f"training.per_device_train_batch_size: {rows}: {-(-users // rows):,} steps an epoch, at one row for "
        f"each of {users:,} users",
        *_advise_time(np.array(distributions["gaps"], dtype=np.float64).reshape(-1, 2), ties / events),
        "These are starting points: choose between neighbours of each on the validation part, width and "
        "dropout first",
    ]


def _step(table: tuple[Any, ...], value: float) -> Any:
    """Give the first row of a table whose bound the value does not pass."""
    return next(row for row in table if row[0] is None or value <= row[0])


def _advise_length(lengths: NDArray[np.int64]) -> list[str]:
    """Advise on length and windows, from pairs of length and users with it."""
    lengths = lengths[np.argsort(lengths[:, 0])]
    length, users = lengths.T
    reached = np.cumsum(users) / users.sum()
    quantiles = {share: int(length[np.searchsorted(reached, share - 1e-12)]) for share in (0.5, 0.95, 0.99)}
    wanted = quantiles[_USERS_COVERED]
    most = next((step for step in _LENGTHS if step >= wanted), _LENGTHS[-1])
    covered = float(users[length <= most].sum() / users.sum())
    lost = float((users * np.maximum(length - most - 1, 0)).sum() / (users * length).sum())
    spread = ", ".join(f"{share:.0%} of users have at most {size:,}" for share, size in quantiles.items())
    lines = [
        f"history lengths: {spread} events",
        f"sequences.max_length: {most}: it holds the whole history of {covered:.0%} of users",
    ]
    if lost >= _LOST:
        lines.append(
            f"sequences.windows: sliding: {lost:.0%} of the events lie before their user's last window, and "
            "`last` would not learn from them"
        )
    else:
        lines.append(f"sequences.windows: last: only {lost:.1%} of the events lie before the last window")
    return lines


def _advise_time(gaps: NDArray[np.float64], tied: float) -> list[str]:
    """Advise on time, from pairs of a bin's start in seconds and the gaps in it."""
    if not len(gaps):
        return ["time: no user has two events, so there is nothing to tell from it"]
    start, pairs = gaps.T
    zero = float(pairs[start == 0].sum() / pairs.sum())
    quick = float(pairs[start < _MINUTE_BIN].sum() / pairs.sum())
    facts = (
        f"time: {quick:.0%} of the gaps between a user's events are under a minute, {zero:.0%} are zero; "
        f"{tied:.0%} of the events share user and time with another"
    )
    later = start[start > 0]
    lines = [facts]
    if not len(later):
        return [*lines, "time encoding: none: all events of a user have the same time"]
    if later.min() >= _DAY_BIN:
        return [
            *lines,
            "time encoding: gaps may help, also that up to the request; hours tell nothing, since times are "
            "whole days, and the order within a day is the tie rule's",
        ]
    if quick >= _BULK:
        return [
            *lines,
            "time encoding: only where it wins on the validation part: times look like those of an import or "
            "of rating in bulk, which say when events were entered, not when they happened",
        ]
    return [*lines, "time encoding: gaps are worth trying; compare with the same model without"]
