"""The generator of `benchmarks/accuracy`: what is planted is there, and its optimum is the best there is."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.accuracy.optimum import (
    Log,
    item_shares,
    leave_one_out,
    rank_figures,
    seen_items,
    shares_with_times,
    shares_without_times,
    split_by_time,
)
from benchmarks.accuracy.planted import draw_log, main, write_events
from benchmarks.accuracy.world import (
    DAY,
    HOUR,
    ORIGIN,
    SESSION,
    STAY,
    SURGE,
    WAKING,
    Sizes,
    Strengths,
    World,
    build_world,
    initial_state,
    observe,
    read_clock,
    theme_shares,
)
from recbert import split_events

OFF = dict.fromkeys(("burst", "daily", "weekly", "interest", "drift", "surge"), 0.0)
SMALL = Sizes(users=200, items=120, themes=6, days=60)


def make(seed: int = 0, sizes: Sizes = SMALL, **strengths: float) -> tuple[World, Log]:
    random = np.random.default_rng(seed)
    world = build_world(sizes, Strengths(**strengths), random)
    return world, draw_log(world, random)


def normal(shares: np.ndarray[Any, Any], world: World, log: Log) -> np.ndarray[Any, Any]:
    return item_shares(world, shares, seen_items(world, log))


def next_shares(world: World, theme: int | None, gap: float, now: int) -> np.ndarray[Any, Any]:
    """Shares of a request at `now`, the one event before it `gap` seconds earlier."""
    state, time = initial_state(world, (1,)), np.array([now])
    if theme is not None:
        state = observe(world, state, time - int(gap), np.array([theme]))
    return theme_shares(world, state, time)[0]


def test_a_seed_makes_one_log_and_another_one_another(tmp_path: Path) -> None:
    sizes = ["--users", "15", "--items", "60", "--themes", "6", "--days", "40"]
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        main(["--seed", seed, "--out", str(tmp_path / name), *sizes])
    files = [
        [(tmp_path / name / file).read_bytes() for name in "abc"] for file in ("events.parquet", "truth.json")
    ]
    for first, again, other in files:
        assert first == again != other
    truth = json.loads((tmp_path / "a" / "truth.json").read_text())
    for split in ("temporal", "leave-one-out"):
        figures = [
            truth[split][name]["expected_ndcg@10"] for name in ("optimum", "without_time", "popularity")
        ]
        assert figures[0] > max(figures[1:])
        assert truth[split]["targets"] > 0


def test_events_are_what_prepare_splits(tmp_path: Path) -> None:
    _, log = make()
    write_events(log, tmp_path / "events.parquet", np.random.default_rng(0))
    events = pl.read_parquet(tmp_path / "events.parquet")
    assert events.columns == ["user_id", "item_id", "timestamp"]
    assert not events.select("user_id", "item_id").is_duplicated().any()
    assert not events.select("user_id", "timestamp").is_duplicated().any()
    assert events["timestamp"].is_sorted()
    for method, part in (("temporal", split_by_time(log)), ("leave-one-out", leave_one_out(log))):
        train, _, test = split_events(events, method)  # type: ignore[arg-type]
        targets = test.filter(pl.col("is_target"))["item_id"].sort()
        last = log.items[part.users, log.lengths[part.users] - 1]
        assert targets.to_list() == sorted(f"i{item:05d}" for item in last)
        assert len(train) == part.train.sum()


def test_optimum_is_what_brute_force_finds() -> None:
    sizes = Sizes(users=3, items=8, themes=2, days=20)
    world, log = make(1, sizes)
    log = Log(log.items[:, :4], log.times[:, :4], np.minimum(log.lengths, 4))
    truth = normal(shares_with_times(world, log), world, log)
    for user, length in enumerate(log.lengths):
        slow = _slow_shares(world, log.items[user, :length], log.times[user, :length])
        np.testing.assert_allclose(truth[user], slow, rtol=1e-12)
        # No order of the items left earns more; all ranks up to 10 count, and there are no more items.
        left = [item for item in range(8) if item not in log.items[user, : length - 1]]
        orders = itertools.permutations(left)
        best = max(sum(slow[item] / np.log2(rank + 2) for rank, item in enumerate(order)) for order in orders)
        one = np.array([user])
        figures = rank_figures(
            truth[one], truth[one], log.items[one, length - 1], seen_items(world, log)[one]
        )
        assert figures["expected_ndcg@10"] == pytest.approx(best)
        assert figures["expected_hit@10"] == pytest.approx(1)


def _slow_shares(world: World, items: Any, times: Any) -> np.ndarray[Any, Any]:
    """The definition of `Strengths` in plain loops."""
    planted, now, before = world.strengths, int(times[-1]), items[:-1]
    weight = np.zeros(world.sizes.themes)
    for item, time in zip(before, times, strict=False):
        weight[world.theme_of[item]] += np.exp(-planted.drift * (now - int(time)) / DAY)
    weekend, hour = (now - ORIGIN) // DAY % 7 >= 5, now % DAY // HOUR
    values = np.zeros(world.sizes.items)
    for item in set(range(world.sizes.items)) - set(before.tolist()):
        theme = world.theme_of[item]
        total = weight.sum()
        follow = planted.interest * total / (total + 2)
        share = (1 - follow) * world.clock[int(weekend), hour, theme]
        share += follow * weight[theme] / total if total else 0
        if len(before) and now - int(times[-2]) < 1800:
            follows = theme == world.follower[world.theme_of[before[-1]]]
            share = (1 - planted.burst) * share + planted.burst * follows
        if SURGE[0] <= (now - ORIGIN) / (world.sizes.days * DAY) < SURGE[1]:
            share = (1 - planted.surge) * share + planted.surge * (theme == world.surge_theme)
        values[item] = share * world.share_of[item]
    return values / values.sum()


def test_what_comes_has_the_chances_that_are_claimed() -> None:
    world, log = make(2, Sizes(users=1500, items=120, themes=6, days=60))
    truth = normal(shares_with_times(world, log), world, log)
    chances = truth[np.arange(len(truth)), log.items[np.arange(len(truth)), log.lengths - 1]]
    # The mean probability of what came equals the mean sum of squares, and so does each theme's frequency.
    spread = chances.std() / np.sqrt(len(chances))
    assert chances.mean() == pytest.approx((truth**2).sum(1).mean(), abs=4 * spread)
    came = np.bincount(world.theme_of[log.items[np.arange(len(truth)), log.lengths - 1]], minlength=6)
    expected = np.stack([truth[:, world.theme_of == theme].sum() for theme in range(6)])
    assert (np.abs(came - expected) < 4 * np.sqrt(expected)).all()


@pytest.mark.parametrize("kept", [{}, {"interest": 0.7}])
def test_without_structure_of_time_the_times_are_worth_nothing(kept: dict[str, float]) -> None:
    world, log = make(3, **{**OFF, **kept})
    known = normal(shares_with_times(world, log), world, log)
    blind = normal(shares_without_times(world, log, seed=0, particles=7), world, log)
    np.testing.assert_allclose(blind, known, atol=1e-12)


@pytest.mark.parametrize(
    "kept", [{"burst": 0.9}, {"daily": 8.0}, {"weekly": 1.5}, {"interest": 0.9, "drift": 0.5}, {"surge": 0.5}]
)
def test_each_structure_alone_makes_times_worth_something(kept: dict[str, float]) -> None:
    world, log = make(4, **{**OFF, **kept})
    seen, last = seen_items(world, log), log.items[np.arange(len(log.items)), log.lengths - 1]
    known = normal(shares_with_times(world, log), world, log)
    blind = normal(shares_without_times(world, log, seed=0, particles=50), world, log)
    best, without = (rank_figures(scores, known, last, seen)["expected_ndcg@10"] for scores in (known, blind))
    assert best > without + 0.002


def test_switches_remove_their_signal_from_the_distribution() -> None:
    noon = ORIGIN + 20 * DAY + 12 * HOUR  # a Sunday, before the sudden event
    late = ORIGIN + 55 * DAY + 12 * HOUR  # the same hour, a Sunday, in it
    world = {name: make(5, **{**OFF, name: 0.8})[0] for name in OFF}
    flat = np.full(6, 1 / 6)
    for name, other in world.items():
        if name not in ("daily", "weekly"):
            np.testing.assert_allclose(next_shares(other, None, 0, noon), flat)
        if name != "burst":
            near, far = (next_shares(other, 1, gap, noon) for gap in (60, 3 * HOUR))
            np.testing.assert_allclose(near, far)
        if name != "surge":
            np.testing.assert_allclose(next_shares(other, 1, DAY, noon), next_shares(other, 1, DAY, late))
        if name != "daily":
            np.testing.assert_allclose(
                next_shares(other, 1, DAY, noon), next_shares(other, 1, DAY, noon + 8 * HOUR)
            )
        if name != "weekly":
            np.testing.assert_allclose(
                next_shares(other, 1, DAY, noon), next_shares(other, 1, DAY, noon + DAY)
            )


def test_gaps_and_clocks_are_distributed_as_planted() -> None:
    world, log = make(6, Sizes(users=1000, items=120, themes=6, days=90))
    gaps = np.diff(log.times, axis=1)[log.real[:, 1:]]
    assert gaps.min() >= 20
    short = gaps < SESSION
    assert short.mean() == pytest.approx(STAY, abs=0.03)  # the end of the log cuts more of the long ones
    assert np.median(gaps[short]) == pytest.approx(20 + 120 * np.log(2), rel=0.1)
    assert gaps[~short].min() > 4 * HOUR
    starts = np.concatenate([log.times[:, 0], log.times[:, 1:][log.real[:, 1:]][~short]])
    weekend, hour = read_clock(starts)
    assert hour.min() == WAKING
    assert (hour >= 18).mean() == pytest.approx(0.75 / 3 + 0.25, abs=0.03)
    assert weekend.mean() == pytest.approx(2 / 7, abs=0.03)
    assert log.times[:, 0].max() < ORIGIN + 45 * DAY
    assert log.times[log.real].max() < ORIGIN + 90 * DAY
    # Themes follow their clock, and the sudden event shows from its first day.
    world, log = make(6, Sizes(users=1000, items=120, themes=6, days=90), **{**OFF, "surge": 0.5})
    day = (log.times[log.real] - ORIGIN) / DAY
    hit = world.theme_of[log.items[log.real]] == world.surge_theme
    assert hit[day < 63].mean() < 0.2 < 0.35 < hit[day >= 63].mean()


def test_items_must_divide_into_themes() -> None:
    with pytest.raises(ValueError, match="items is 10: it must be a multiple of themes, 3"):
        Sizes(items=10, themes=3)
