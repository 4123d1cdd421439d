import numpy as np
import pytest

from recbert.evaluation import (
    Ranking,
    RankingMetrics,
    bootstrap_mean,
    build_bucket_table,
    build_table,
    compare_means,
    describe_protocol,
)


def ranking_of(ranks: list[float], users: list[str] | None = None) -> Ranking:
    top = np.tile(np.arange(10, dtype=np.int32), (len(ranks), 1))
    names = users or [str(number) for number in range(len(ranks))]
    return Ranking(np.array(ranks), top, np.arange(len(ranks)) % 10, names, num_items=10)


def test_interval_matches_the_binomial_one() -> None:
    """1,000 independent rows, 30 % hits: the 95 % interval is 0.3 +- 1.96 sqrt(0.3 * 0.7 / 1000) = 0.0284."""
    values = np.repeat([1.0, 0.0], [300, 700])
    low, high = bootstrap_mean(values, [str(number) for number in range(1000)], resamples=4000)
    assert low == pytest.approx(0.3 - 0.0284, abs=0.002)
    assert high == pytest.approx(0.3 + 0.0284, abs=0.002)


def test_rows_of_a_user_are_drawn_together() -> None:
    """Ten equal rows of each user are no more evidence than one row of each."""
    values = np.repeat([1.0, 0.0], [30, 70])
    users = [str(number) for number in range(100)]
    single = bootstrap_mean(values, users)
    tenfold = bootstrap_mean(np.repeat(values, 10), np.repeat(users, 10).tolist())
    assert tenfold == pytest.approx(single)
    independent = bootstrap_mean(np.repeat(values, 10), [str(number) for number in range(1000)])
    assert independent[1] - independent[0] < 0.5 * (single[1] - single[0])


def test_clustered_bootstrap_equals_a_plain_loop() -> None:
    values = np.array([1.0, 0.0, 0.5, 0.25, 0.0])
    users = ["a", "a", "b", "c", "c"]
    generator = np.random.default_rng(7)
    rows = {0: [1.0, 0.0], 1: [0.5], 2: [0.25, 0.0]}
    means = []
    for draw in generator.integers(3, size=(200, 3)):
        drawn = [value for user in draw for value in rows[int(user)]]
        means.append(sum(drawn) / len(drawn))
    assert bootstrap_mean(values, users, resamples=200, seed=7) == pytest.approx(
        tuple(np.percentile(means, [2.5, 97.5]))
    )


def test_the_chunks_of_a_large_bootstrap_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.linspace(0, 1, 50)
    users = [str(number) for number in range(50)]
    whole = bootstrap_mean(values, users)
    monkeypatch.setattr("recbert.evaluation.intervals._DRAWS_AT_ONCE", 333)
    assert bootstrap_mean(values, users) == whole


def test_paired_comparison_sees_what_two_intervals_do_not() -> None:
    """Every user is a little better off: the runs' own intervals overlap, the paired one excludes 0."""
    base = np.random.default_rng(0).random(200)
    users = [str(number) for number in range(200)]
    found = compare_means(base + 0.01, base, users)
    assert found.difference == pytest.approx(0.01)
    assert found.low == pytest.approx(0.01)
    assert found.high == pytest.approx(0.01)
    assert found.p_value < 0.01
    assert bootstrap_mean(base + 0.01, users)[0] < bootstrap_mean(base, users)[1]


def test_comparing_is_antisymmetric_and_equal_runs_do_not_differ() -> None:
    generator = np.random.default_rng(1)
    first = ranking_of(generator.integers(1, 30, size=60).astype(float).tolist())
    second = ranking_of(generator.integers(1, 30, size=60).astype(float).tolist())
    metrics = RankingMetrics()
    there, back = metrics.compare(first, second), metrics.compare(second, first)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p_value == back.p_value
    same = metrics.compare(first, first)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_the_seed_decides() -> None:
    ranking = ranking_of(np.linspace(1, 15, 57).tolist())
    assert RankingMetrics().bootstrap(ranking, "ndcg@10") == RankingMetrics().bootstrap(ranking, "ndcg@10")
    assert RankingMetrics(seed=1).bootstrap(ranking, "ndcg@10") != RankingMetrics().bootstrap(
        ranking, "ndcg@10"
    )


def test_the_table_shows_intervals_differences_and_the_protocol() -> None:
    good, bad = ranking_of([1.0] * 20), ranking_of([11.0] * 20)
    table = build_table(
        {"a|b": good, "floor": bad},
        split="last event of each user",
        columns=("hit@10", "coverage@5"),
        against="floor",
    )
    header, rule, first, second, _, protocol = table.strip().split("\n")
    assert header == "| model | hit@10 | coverage@5 | ndcg@10 against floor |"
    assert rule.count("---:") == 3
    assert first == ("| a\\|b | 1.0000 [1.0000, 1.0000] | 0.5000 | +1.0000 [+1.0000, +1.0000], p = 0.002 |")
    assert second == "| floor | 0.0000 [0.0000, 0.0000] | 0.5000 |  |"
    for part in (
        "last event of each user",
        "20 targets of 20 users",
        "10 items",
        "filtered",
        "mid-rank",
        "1,000",
    ):
        assert part in protocol


def test_the_bucket_table_counts_the_targets() -> None:
    table = build_bucket_table(
        {"model": ranking_of([1.0, 3.0])}, [4, 0, 0, 0, 0, 0, 0, 0, 0, 0], column="hit@1"
    )
    assert table == (
        "| hit@1 by popularity | head (1 targets) | mid (0 targets) | tail (0 targets) | cold (1 targets) |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| model | 1.0000 | - | - | 0.0000 |\n"
    )


def test_bad_input_is_refused() -> None:
    first, second = ranking_of([1.0, 2.0]), ranking_of([1.0, 2.0], users=["x", "y"])
    with pytest.raises(ValueError, match="rank different targets"):
        RankingMetrics().compare(first, second)
    with pytest.raises(ValueError, match="0 rows"):
        bootstrap_mean(np.empty(0), [])
    with pytest.raises(ValueError, match="resamples is 0"):
        bootstrap_mean(np.ones(1), ["a"], resamples=0)
    with pytest.raises(ValueError, match="same targets"):
        compare_means(np.ones(1), np.ones(2), ["a", "b"])
    with pytest.raises(ValueError, match="allowed are"):
        build_table({"a": first}, split="", against="b")
    with pytest.raises(ValueError, match="rankings is empty"):
        build_bucket_table({}, [1])


def test_the_protocol_counts_what_can_never_be_hit() -> None:
    ranking = Ranking(
        ranks=np.array([1.0, np.inf, np.inf, np.inf]),
        top=np.zeros((4, 1), dtype=np.int32),
        targets=np.array([0, 1, -1, -1]),
        users=["a", "a", "b", "c"],
        num_items=3,
    )
    line = describe_protocol("last event", ranking, RankingMetrics())
    assert "4 targets of 3 users" in line
    assert "2 targets outside the vocabulary count as misses; so do 1 targets that the filter" in line
