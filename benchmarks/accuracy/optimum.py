"""The best ranking that the known distribution of `world` allows, with and without times, and its figures."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.world import (
    DAY,
    ORIGIN,
    Floats,
    Ints,
    State,
    World,
    draw_first,
    draw_next,
    initial_state,
    observe,
    theme_shares,
)

Flags = NDArray[np.bool_]
K = 10
PARTICLES = 200
USERS_AT_ONCE = 250
WEIGHTS = 1 / np.log2(np.arange(2, K + 2))


class Log(NamedTuple):
    """The events of all users, padded at the end.

    Attributes:
        items: (U, L) item numbers, -1 beyond a user's events.
        times: (U, L) epoch seconds.
        lengths: (U,) events of each user.
    """

    items: Ints
    times: Ints
    lengths: Ints

    @property
    def real(self) -> Flags:
        """(U, L) where events are."""
        return np.arange(self.items.shape[1]) < self.lengths[:, None]

    def take(self, users: Ints) -> "Log":
        """Keep some users."""
        return Log(self.items[users], self.times[users], self.lengths[users])


class Part(NamedTuple):
    """The test targets of a split, each the last event of its user, and the events that training sees.

    Attributes:
        users: (N,) users with a target.
        train: (U, L) events of the training part.
    """

    users: Ints
    train: Flags


def split_by_time(log: Log, cuts: tuple[float, float] = (0.8, 0.9)) -> Part:
    """Do as the temporal split of `recbert.split_events`: targets are last events from the second cut on."""
    times = np.sort(log.times[log.real])
    first, second = (times[int(cut * len(times) + 1e-9)] for cut in cuts)
    last = np.where(log.real, log.times, 0).max(1)
    return Part(np.flatnonzero((last >= second) & (log.lengths > 1)), log.real & (log.times < first))


def leave_one_out(log: Log) -> Part:
    """Do as leave-one-out of `recbert.split_events`: the last event, and the one before for validation."""
    held_out = np.where(log.lengths > 2, 2, 0)
    return Part(
        np.flatnonzero(log.lengths > 2), np.arange(log.items.shape[1]) < (log.lengths - held_out)[:, None]
    )


def seen_items(world: World, log: Log) -> Flags:
    """Mark what users took before their last event, (U, V)."""
    seen = np.zeros((len(log.items), world.sizes.items), dtype=bool)
    users, places = np.nonzero(np.arange(log.items.shape[1]) < log.lengths[:, None] - 1)
    seen[users, log.items[users, places]] = True
    return seen


def item_shares(world: World, shares: Floats, seen: Flags) -> Floats:
    """Give the distribution over items, (U, V), of distributions over themes (U, G) and seen items (U, V)."""
    values = np.where(seen, 0.0, shares[:, world.theme_of] * world.share_of)
    return values / values.sum(1, keepdims=True)


def shares_with_times(world: World, log: Log) -> Floats:
    """Give the true distribution over themes at each user's last event, (U, G)."""
    state = initial_state(world, log.lengths.shape)
    shares = np.zeros((len(log.lengths), world.sizes.themes))
    for place in range(log.items.shape[1]):
        here = log.lengths == place + 1
        shares[here] = theme_shares(world, state, log.times[:, place])[here]
        state = observe(world, state, log.times[:, place], world.theme_of[log.items[:, place]])
    return shares


def shares_without_times(world: World, log: Log, seed: int, particles: int = PARTICLES) -> Floats:
    """Give the distribution over themes for who sees the order of events but no time, (U, G), unnormalised.

    A particle filter: each particle carries times drawn as the world draws them, and survives by how well
    they explain the items. What is left is the error of `particles` draws.
    """
    random = np.random.default_rng(seed)
    shares = np.zeros((len(log.lengths), world.sizes.themes))
    # Users of similar lengths together, since a block walks as far as its longest.
    order = np.argsort(log.lengths, kind="stable")
    for start in range(0, len(order), USERS_AT_ONCE):
        users = order[start : start + USERS_AT_ONCE]
        shares[users] = _filter(world, log.take(users), particles, random)
    return shares


def _filter(world: World, log: Log, particles: int, random: np.random.Generator) -> Floats:
    shape = (len(log.lengths), particles)
    end = ORIGIN + world.sizes.days * DAY
    found = np.zeros((shape[0], world.sizes.themes))
    free = np.ones_like(found)  # (U, G): share of each theme that the user has not taken yet
    state = initial_state(world, shape)
    for place in range(int(log.lengths.max())):
        now = draw_next(state.last, random) if place else draw_first(world, shape, random)
        shares = theme_shares(world, state, now)  # (U, P, G)
        shares /= (shares * free[:, None]).sum(-1, keepdims=True)
        possible = (now < end).astype(np.float64) + 1e-9
        here = log.lengths == place + 1
        found[here] = (shares * possible[..., None]).sum(1)[here]
        item = log.items[:, place]
        theme = world.theme_of[item]
        weights = possible * np.take_along_axis(shares, theme[:, None, None], 2)[..., 0]
        chosen = _resample(weights, random)
        state = observe(world, state, now, theme[:, None])
        state = State(
            np.take_along_axis(state.last, chosen, 1),
            np.take_along_axis(state.current, chosen, 1),
            np.take_along_axis(state.interests, chosen[..., None], 1),
        )
        # Rows beyond their last event go on with item -1, and nobody looks at them any more.
        free[np.arange(shape[0]), theme] -= world.share_of[item] * (log.lengths > place)
    return found


def _resample(weights: Floats, random: np.random.Generator) -> Ints:
    """Choose particles by their weights (U, P): one random offset a user, then equal steps."""
    users, particles = weights.shape
    ends = np.cumsum(weights / weights.sum(1, keepdims=True), axis=1)
    points = (random.random((users, 1)) + np.arange(particles)) / particles
    # One sorted array for all users: user u's stretch lies between u and u + 1.
    rows = np.arange(users)[:, None]
    chosen = np.searchsorted((ends + rows).ravel(), (points + rows).ravel()).reshape(users, particles)
    return np.clip(chosen - rows * particles, 0, particles - 1)


def rank_figures(scores: Floats, truth: Floats, targets: Ints, seen: Flags) -> dict[str, float]:
    """Give what a ranking earns, on the targets that came and on average over those that could have come.

    Args:
        scores: (N, V) what items are ranked by.
        truth: (N, V) the true distribution.
        targets: (N,) items that came.
        seen: (N, V) items that are no candidates.
    """
    scores = np.where(seen, -np.inf, scores)
    own = np.take_along_axis(scores, targets[:, None], 1)
    ranks = 1 + (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    hit = ranks <= K
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    chances = np.take_along_axis(truth, best, 1)  # (N, K)
    return {
        "ndcg@10": float((hit / np.log2(ranks + 1)).mean()),
        "hit@10": float(hit.mean()),
        "expected_ndcg@10": float((chances * WEIGHTS[: chances.shape[1]]).sum(1).mean()),
        "expected_hit@10": float(chances.sum(1).mean()),
    }


def measure_optimum(
    world: World, log: Log, parts: dict[str, Part], seed: int
) -> dict[str, dict[str, object]]:
    """Give the figures of the optimum, of the best without times and of popularity, by part."""
    known, blind = shares_with_times(world, log), shares_without_times(world, log, seed)
    seen = seen_items(world, log)
    targets = log.items[np.arange(len(log.lengths)), log.lengths - 1]
    results: dict[str, dict[str, object]] = {}
    for name, (users, train) in parts.items():
        counts = np.bincount(log.items[train], minlength=world.sizes.items).astype(np.float64)
        truth = item_shares(world, known[users], seen[users])
        rankings = {
            "optimum": truth,
            "without_time": item_shares(world, blind[users], seen[users]),
            "popularity": np.broadcast_to(counts, truth.shape),
        }
        results[name] = {
            "targets": len(users),
            "train_events": int(train.sum()),
            **{
                key: rank_figures(scores, truth, targets[users], seen[users])
                for key, scores in rankings.items()
            },
        }
    return results
