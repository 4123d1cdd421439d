import doctest

import evaluate
import numpy as np
import pytest

from recbert.evaluation import Ranking, RankingMetrics, modules
from recbert.evaluation.modules import RankingComparison, RankingMetric

PREDICTIONS = [["tea", "cup"], ["cup", "jam"], ["pot", "tea"]]
REFERENCES = ["cup", "cup", "pan"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path))


def test_docstring_examples_are_true() -> None:
    assert doctest.testmod(modules).failed == 0


def test_lists_of_ids() -> None:
    found = RankingMetric().compute(predictions=PREDICTIONS, references=REFERENCES, ks=(1, 2))
    assert found["hit@1"] == found["accuracy"] == pytest.approx(1 / 3)
    assert found["hit@2"] == pytest.approx(2 / 3)
    assert found["mrr@2"] == pytest.approx((1 / 2 + 1) / 3)
    assert found["ndcg@2"] == pytest.approx((1 / np.log2(3) + 1) / 3)
    assert not any(name.startswith(("coverage", "novelty")) for name in found)


def test_integers_work_as_ids_and_strings_stay_strings() -> None:
    numbers = RankingMetric().compute(predictions=[[7, 8]], references=[8], ks=(2,))
    assert numbers["hit@2"] == 1
    strings = RankingMetric().compute(predictions=[["007"]], references=["7"], ks=(1,))
    assert strings["hit@1"] == 0


def test_ranks_work_in_place_of_lists() -> None:
    found = RankingMetric().compute(predictions=[1.0, 2.5, float("inf")], references=["a", "b", "c"], ks=(3,))
    assert found["mrr@3"] == pytest.approx((1 + 0.4) / 3)


def test_the_catalogue_gives_coverage_and_novelty() -> None:
    found = RankingMetric().compute(
        predictions=[["a"], ["b"]],
        references=["a", "a"],
        ks=(1,),
        popularity={"a": 3, "b": 1, "c": 0, "d": 0},
    )
    assert found["coverage@1"] == 0.5
    assert found["novelty@1"] == pytest.approx((-np.log2(3 / 4) + 2) / 2)


def test_intervals_are_those_of_ranking_metrics() -> None:
    ranks, users = [1.0, 3.0, 30.0, 2.0], ["a", "a", "b", "c"]
    found = RankingMetric().compute(
        predictions=ranks, references=["x"] * 4, users=users, ks=(10,), intervals=True
    )
    ranking = Ranking(
        np.array(ranks), np.empty((4, 0), dtype=np.int32), np.zeros(4, dtype=np.int64), users, 1
    )
    assert found["ndcg@10_interval"] == RankingMetrics().bootstrap(ranking, "ndcg@10")


def test_batches_add_up_and_modules_combine() -> None:
    combined = evaluate.combine([RankingMetric()])
    for prediction, reference in zip(PREDICTIONS, REFERENCES, strict=True):
        combined.add_batch(predictions=[prediction], references=[reference])
    assert combined.compute(ks=(1, 2))["hit@2"] == pytest.approx(2 / 3)


def test_comparison_of_two_runs() -> None:
    references = ["a"] * 30
    found = RankingComparison().compute(
        predictions1=[["a", "b"]] * 30, predictions2=[["b", "a"]] * 30, references=references, metric="mrr@2"
    )
    assert found["difference"] == found["low"] == found["high"] == 0.5
    assert found["p_value"] < 0.01


def test_a_cut_off_beyond_the_lists_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 10 but"):
        RankingMetric().compute(
            predictions=[["a"]], references=["b"], ks=(10,), popularity={str(item): 1 for item in range(20)}
        )
