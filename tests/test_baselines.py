from collections.abc import Sequence

import numpy as np
import pytest
import torch
from datasets import Dataset

from recbert.baselines import (
    ItemKNN,
    Markov,
    Popularity,
    RecentPopularity,
    SequentialRules,
    cooccurrence_vectors,
    tell_apart,
)
from recbert.tokenizer import FIRST_ITEM_ID, UNK_ID

DAY = 86_400
ALL = [Popularity, RecentPopularity, Markov, SequentialRules, ItemKNN]


def train_part(histories: Sequence[Sequence[int]], days: Sequence[Sequence[float]] | None = None) -> Dataset:
    """One whole row for each user; items are item indices, -1 an unknown one."""
    return Dataset.from_dict(
        {
            "user_id": [f"u{number}" for number in range(len(histories))],
            "input_ids": [tokens(history).tolist() for history in histories],
            "timestamps": [
                [DAY * float(day) for day in (days[number] if days else range(len(history)))]
                for number, history in enumerate(histories)
            ],
            "is_target": [[True] * len(history) for history in histories],
        }
    )


def tokens(items: Sequence[int]) -> np.ndarray:
    return np.array([UNK_ID if item < 0 else FIRST_ITEM_ID + item for item in items], dtype=np.int64)


def scores(baseline: object, history: Sequence[int]) -> list[float]:
    return baseline.scores([tokens(history)])[0].tolist()


def random_histories(seed: int, users: int = 30, items: int = 9) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(items, size=generator.integers(1, 15)).tolist() for _ in range(users)]


def test_popularity_counts_events() -> None:
    baseline = Popularity().fit(train_part([[0, 1, 1], [1, 2]]), num_items=4)
    assert scores(baseline, [3]) == scores(baseline, []) == [1, 3, 1, 0]


def test_recent_popularity_counts_the_last_days() -> None:
    part = train_part([[0, 1], [0, 2]], days=[[0, 95], [10, 100]])
    assert scores(RecentPopularity(days=5).fit(part, 3), []) == [0, 1, 1]
    assert scores(RecentPopularity(days=90).fit(part, 3), []) == [1, 1, 1]
    assert scores(RecentPopularity(days=1000).fit(part, 3), []) == [2, 1, 1]


def test_markov_gives_the_shares_of_the_successors() -> None:
    baseline = Markov().fit(train_part([[0, 1, 0, 1, 0, 2], [1, 2]]), num_items=4)
    assert scores(baseline, [2, 0]) == pytest.approx([0, 2 / 3, 1 / 3, 0])
    assert scores(baseline, [1]) == pytest.approx([2 / 3, 0, 1 / 3, 0])
    assert scores(baseline, [2]) == scores(baseline, []) == [0, 0, 0, 0]


def test_rules_equal_hand_computed() -> None:
    """0 1 2 gives 0>1 and 1>2 one each and 0>2 a half; the query 0 1 asks 1 in full and 0 by half."""
    baseline = SequentialRules(window=2).fit(train_part([[0, 1, 2], [0, 2]]), num_items=3)
    assert scores(baseline, [0]) == [0, 1, 1.5]
    assert scores(baseline, [0, 1]) == [0, 0.5, 1 + 0.75]
    assert scores(baseline, [0, 2, 2]) == [0, 0, 0]  # 0 is out of the window


@pytest.mark.parametrize("window", [1, 3, 10])
def test_rules_equal_brute_force(window: int) -> None:
    histories, queries = random_histories(0), random_histories(1)
    counts = np.zeros((9, 9))
    for history in histories:
        for j, later in enumerate(history):
            for i in range(max(0, j - window), j):
                counts[history[i], later] += 1 / (j - i)
    baseline = SequentialRules(window).fit(train_part(histories), num_items=9)
    found = baseline.scores([tokens(query) for query in queries])
    for number, query in enumerate(queries):
        expected = sum(counts[item] / d for d, item in enumerate(reversed(query[-window:]), 1))
        np.testing.assert_allclose(found[number].numpy(), expected, rtol=1e-6)


def test_item_knn_equals_brute_force() -> None:
    histories, queries = random_histories(2, users=12), random_histories(3)
    met = np.array([[item in history for item in range(9)] for history in histories], dtype=float)
    users = met.sum(0)
    similarity = (met.T @ met) / np.sqrt(np.outer(users, users)).clip(1e-9)
    np.fill_diagonal(similarity, 0)
    for row in similarity:
        row[row < np.sort(row)[-3]] = 0
    baseline = ItemKNN(neighbours=3).fit(train_part(histories), num_items=9)
    found = baseline.scores([tokens(query) for query in queries])
    for number, query in enumerate(queries):
        np.testing.assert_allclose(found[number].numpy(), similarity[sorted(set(query))].sum(0), rtol=1e-5)


def test_item_knn_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    part = train_part(random_histories(4))
    query = [tokens(history) for history in random_histories(5)]
    whole = ItemKNN(4).fit(part, 9).scores(query)
    monkeypatch.setattr("recbert.baselines.item_knn._BLOCK", 2)
    assert torch.equal(ItemKNN(4).fit(part, 9).scores(query), whole)


def test_shrinkage_lowers_the_similarity_of_rare_items() -> None:
    part = train_part([[0, 1], [2, 3], [2, 3], [2, 3]])
    plain, shrunk = ItemKNN().fit(part, 4), ItemKNN(shrinkage=1).fit(part, 4)
    assert scores(plain, [0])[1] == scores(plain, [2])[3] == 1
    assert scores(shrunk, [0])[1] == 0.5
    assert scores(shrunk, [2])[3] == 0.75


@pytest.mark.parametrize("baseline", ALL)
@pytest.mark.parametrize("windows", ["sliding", "prefix"])
def test_windows_do_not_change_what_is_counted(baseline: type, windows: str) -> None:
    histories = [history for history in random_histories(6) if len(history) > 1]
    rows: dict[str, list[object]] = {"user_id": [], "input_ids": [], "timestamps": [], "is_target": []}
    for user, history in enumerate(histories):
        if windows == "sliding":  # four events each, the first of a later window stood in the one before
            pieces = [(start, start + 4) for start in range(0, len(history) - 1, 3)]
        else:
            pieces = [(0, stop) for stop in range(2, len(history) + 1)]
        for start, stop in pieces:
            events = list(range(len(history)))[start:stop]
            fresh = [windows == "sliding" and (start == 0 or place > start) for place in events]
            fresh[-1] = True
            rows["user_id"].append(f"u{user}")
            rows["input_ids"].append(tokens([history[place] for place in events]).tolist())
            rows["timestamps"].append([float(DAY * place) for place in events])
            rows["is_target"].append(fresh)
    queries = [tokens(history) for history in random_histories(7)]
    whole = baseline().fit(train_part(histories), 9).scores(queries)
    assert torch.equal(baseline().fit(Dataset.from_dict(rows), 9).scores(queries), whole)


@pytest.mark.parametrize("baseline", ALL)
def test_permuting_the_items_permutes_the_scores(baseline: type) -> None:
    histories, queries = random_histories(8), random_histories(9)
    order = np.random.default_rng(0).permutation(9)
    before = baseline().fit(train_part(histories), 9).scores([tokens(query) for query in queries])
    permuted = train_part([order[history].tolist() for history in histories])
    after = baseline().fit(permuted, 9).scores([tokens(order[query].tolist()) for query in queries])
    assert torch.equal(after[:, torch.from_numpy(order)], before)


@pytest.mark.parametrize("baseline", ALL)
def test_unknown_items_are_skipped(baseline: type) -> None:
    plain = baseline().fit(train_part([[0, 1, 2], [1, 2]]), 3)
    holed = baseline().fit(train_part([[0, -1, 1, 2], [1, 2, -1]]), 3)
    assert scores(holed, [0, -1, 1, -1]) == pytest.approx(scores(plain, [0, 1]))
    assert scores(holed, [-1]) == scores(holed, [])


@pytest.mark.parametrize("baseline", ALL)
def test_bad_input_is_refused(baseline: type) -> None:
    with pytest.raises(ValueError, match="train is empty"):
        baseline().fit(train_part([]), 3)
    with pytest.raises(ValueError, match="nothing to count"):
        baseline().fit(train_part([[-1, -1]]), 3)
    with pytest.raises(ValueError, match="num_items is 2"):
        baseline().fit(train_part([[0, 2]]), 2)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="days is 0"):
        RecentPopularity(days=0)
    with pytest.raises(ValueError, match="window is 0"):
        SequentialRules(window=0)
    with pytest.raises(ValueError, match="neighbours is 0"):
        ItemKNN(neighbours=0)
    with pytest.raises(ValueError, match="shrinkage is -1"):
        ItemKNN(shrinkage=-1)
    with pytest.raises(ValueError, match="no timestamps"):
        RecentPopularity().fit(train_part([[0]], days=[[float("nan")]]), 1)


def test_cooccurrence_vectors_decompose_the_information_of_pairs() -> None:
    histories, window = random_histories(seed=4), 3
    counts = np.zeros((9, 9))
    for history in histories:
        for first, item in enumerate(history):
            for distance, other in enumerate(history[first + 1 : first + 1 + window], start=1):
                counts[item, other] += 1 / distance
                counts[other, item] += 1 / distance
    totals = counts.sum(1)
    held_back = totals**0.75 / (totals**0.75).sum()
    with np.errstate(divide="ignore"):
        information = np.log(counts / totals[:, None] / held_back).clip(min=0)
    left, values, right = np.linalg.svd(information)
    first, second = cooccurrence_vectors(train_part(histories), 9, 4, window=window)
    assert (first @ second.T).numpy() == pytest.approx((left * values)[:, :4] @ right[:4], abs=1e-4)
    assert first.square().sum(0) == pytest.approx(values[:4], abs=1e-4)


def test_cooccurrence_vectors_leave_lonely_items_and_spare_columns_zero() -> None:
    first, second = cooccurrence_vectors(train_part([[0, 1], [0, 1], [2, 3]]), num_items=5, size=8)
    for vectors in (first, second):
        assert vectors.shape == (5, 8) and not vectors[4].any() and not vectors[:, 5:].any()
    assert first[0] @ second[1] > 1 > abs(first[0] @ second[0])


def test_items_are_told_apart_by_codes_behind_their_vectors() -> None:
    vectors = torch.ones(40, 8) * torch.arange(40)[:, None]
    first, second = tell_apart(vectors, 200), tell_apart(vectors, 200)
    assert torch.equal(first[:, :8], vectors) and not torch.equal(first, second)
    likeness = torch.corrcoef(first[:, 8:])
    assert (likeness - torch.eye(40)).abs().max() < 0.35


def test_cooccurrence_vectors_leave_the_generator_alone() -> None:
    state = torch.get_rng_state()
    part = train_part(random_histories(seed=5))
    assert torch.equal(cooccurrence_vectors(part, 9, 4).first, cooccurrence_vectors(part, 9, 4).first)
    assert torch.equal(torch.get_rng_state(), state)
