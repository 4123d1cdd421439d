import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from recbert.backends import TorchScorer
from recbert.baselines import ItemLinks, SequentialRules, limit_links, read_links
from recbert.checkpoint import RULES_FILE, Blend, CheckpointInfo, InputFormat, read_info, write_info
from recbert.checkpoint.card import build_model_card
from recbert.evaluation import RankingMetrics, rank_targets
from recbert.inputs import TargetRows
from recbert.models import build_model
from recbert.recommender import BlendedScorer, Recommender, save_blend, try_blends
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

ITEMS = [f"item {number:02d}" for number in range(40)]
FORMAT = InputFormat("next-item", max_length=6)
POPULARITY = list(range(1, 41))
WINDOW = 3


def random_histories(number: int, seed: int = 0) -> list[np.ndarray]:
    """Histories of 1 to 9 token ids; the last five items occur nowhere, so that they have no rules."""
    rng = np.random.default_rng(seed)
    return [rng.integers(FIRST_ITEM_ID, FIRST_ITEM_ID + 35, rng.integers(1, 10)) for _ in range(number)]


def as_part(histories: list[np.ndarray]) -> Dataset:
    rows = {
        "user_id": [f"u{number}" for number in range(len(histories))],
        "input_ids": [row.tolist() for row in histories],
        "timestamps": [np.arange(len(row), dtype=float).tolist() for row in histories],
        "is_target": [[False] * (len(row) - 1) + [True] for row in histories],
    }
    return Dataset.from_dict(rows)


@pytest.fixture
def model() -> torch.nn.Module:
    tokenizer = ItemTokenizer.from_items(ITEMS)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "dropout": 0.0, "max_length": 6}
    built = build_model("gpt2", tokenizer, objective="next-item", **size).eval()
    with torch.no_grad():
        built.get_input_embeddings().weight.normal_(0, 0.5)
    return built


@pytest.fixture
def scorer(model: torch.nn.Module) -> TorchScorer:
    return TorchScorer(model, FORMAT, POPULARITY)


@pytest.fixture
def rules() -> SequentialRules:
    return SequentialRules(WINDOW).fit(as_part(random_histories(30)), len(ITEMS))


@pytest.fixture
def folder(tmp_path: Path, model: torch.nn.Module, rules: SequentialRules) -> Path:
    """A checkpoint with a blend and a card."""
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    ItemTokenizer.from_items(ITEMS).save_pretrained(folder)
    info = CheckpointInfo(FORMAT, POPULARITY, metrics={"ndcg@10": 0.5, "with rules/ndcg@10": 0.6})
    write_info(folder, info)
    (folder / "README.md").write_text(build_model_card(info, model.config.to_dict()), encoding="utf-8")
    save_blend(folder, Blend(WINDOW, 0.8, 0.7), rules.links)
    return folder


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_blend_is_the_geometric_mean_of_the_model_and_its_interpolation(
    scorer: TorchScorer, rules: SequentialRules, power: float
) -> None:
    histories = random_histories(200, seed=1)
    model, counts = scorer.scores(histories).double(), rules.scores(histories).double()
    p, r = model.softmax(1), counts / counts.sum(1, keepdim=True).clamp(min=1e-9)
    expected = p ** (1 - power) * (0.3 * p + 0.7 * r) ** power
    found = BlendedScorer(scorer, rules.links, Blend(WINDOW, 0.7, power)).scores(histories).double()
    torch.testing.assert_close(
        found.softmax(1), expected / expected.sum(1, keepdim=True), atol=1e-6, rtol=1e-4
    )
    assert torch.equal(found[counts == 0], model[counts == 0])


def test_ends_of_the_weight_are_the_model_and_the_rules(scorer: TorchScorer, rules: SequentialRules) -> None:
    histories = random_histories(50, seed=2)
    model, counts = scorer.scores(histories), rules.scores(histories)
    nearly_none = BlendedScorer(scorer, rules.links, Blend(WINDOW, 1e-12, 1.0)).scores(histories)
    assert torch.equal(nearly_none.argsort(dim=1, stable=True), model.argsort(dim=1, stable=True))
    nearly_all = BlendedScorer(scorer, rules.links, Blend(WINDOW, 1 - 1e-12, 1.0)).scores(histories)
    for blended, count in zip(nearly_all, counts, strict=True):
        reached = count > 0
        torch.testing.assert_close(
            blended[reached] - blended[reached].mean(),
            count[reached].log() - count[reached].log().mean(),
            atol=1e-4,
            rtol=0,
        )
        if reached.any():
            assert blended[reached].min() > blended[~reached].max()


def test_histories_without_known_items_are_answered_by_popularity(
    scorer: TorchScorer, rules: SequentialRules
) -> None:
    blended = BlendedScorer(scorer, rules.links, Blend(WINDOW, 0.5, 1.0))
    histories = [np.array([1]), np.array([], dtype=np.int64), np.array([FIRST_ITEM_ID + 3, 1])]
    assert torch.equal(blended.scores(histories)[:2], scorer.scores(histories)[:2])
    assert blended.scores([]).shape == (0, len(ITEMS))


def test_permuting_items_permutes_scores(model: torch.nn.Module, rules: SequentialRules) -> None:
    histories, blend = random_histories(30, seed=3), Blend(WINDOW, 0.7, 0.7)
    plain = BlendedScorer(TorchScorer(model, FORMAT, POPULARITY), limit_links(rules.links, 4), blend)
    expected = plain.scores(histories)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(ITEMS)))
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        weight[FIRST_ITEM_ID + order] = weight[FIRST_ITEM_ID:].clone()
    renamed = [order.numpy()[row - FIRST_ITEM_ID] + FIRST_ITEM_ID for row in random_histories(30)]
    counted = SequentialRules(WINDOW).fit(as_part(renamed), len(ITEMS)).links
    permuted = BlendedScorer(TorchScorer(model, FORMAT, POPULARITY), limit_links(counted, 4), blend)
    asked = [order.numpy()[row - FIRST_ITEM_ID] + FIRST_ITEM_ID for row in histories]
    torch.testing.assert_close(permuted.scores(asked)[:, order], expected, atol=1e-5, rtol=1e-5)


def test_the_strongest_links_stay_and_ties_across_the_limit_go() -> None:
    links = ItemLinks(np.array([0, 4, 4, 6]), np.array([0, 1, 2, 3, 0, 1]), np.array([2.0, 1, 3, 1, 5, 5]))
    kept = limit_links(links, 3)
    assert kept.starts.tolist() == [0, 2, 2, 4]
    assert kept.ends.tolist() == [0, 2, 0, 1] and kept.weights.tolist() == [2, 3, 5, 5]
    assert limit_links(links, 1).starts.tolist() == [0, 1, 1, 1]
    assert all(np.array_equal(*pair) for pair in zip(limit_links(links, 4), links, strict=True))


@pytest.mark.parametrize(("filter_seen", "allow_repeats"), [(True, False), (True, True), (False, False)])
def test_every_blend_is_measured_as_ranking_with_it_would(
    scorer: TorchScorer, rules: SequentialRules, filter_seen: bool, allow_repeats: bool
) -> None:
    histories = [*random_histories(60, seed=4), np.array([1, FIRST_ITEM_ID]), np.array([FIRST_ITEM_ID, 1])]
    targets = TargetRows(as_part([row for row in histories if len(row) > 1]))
    protocol = {"filter_seen": filter_seen, "allow_repeats": allow_repeats}
    choice = try_blends(scorer, {WINDOW: rules.links}, targets, batch_size=16, **protocol)
    metrics = RankingMetrics((10,))
    assert choice.alone == pytest.approx(metrics.value(rank_targets(scorer, targets, **protocol), "ndcg@10"))
    for blend in list(choice.blends)[::5]:
        ranking = rank_targets(BlendedScorer(scorer, rules.links, blend), targets, **protocol)
        assert choice.blends[blend] == pytest.approx(metrics.value(ranking, "ndcg@10"), abs=1e-9)
    best = choice.best
    assert best is None or choice.blends[best] == max(choice.blends.values()) > choice.alone
    assert choice._replace(alone=1.0).best is None


def test_blend_is_saved_and_loaded(folder: Path, scorer: TorchScorer, rules: SequentialRules) -> None:
    recommender = Recommender.from_pretrained(folder)
    history = ["item 03", "item 07", "item 11"]
    tokens = [np.asarray(recommender.tokenizer.encode(history))]
    in_memory = BlendedScorer(scorer, rules.links, Blend(WINDOW, 0.8, 0.7)).scores(tokens)[0]
    answer = dict(recommender.recommend(history, 99, filter_seen=False))
    assert answer == pytest.approx(dict(zip(ITEMS, in_memory.tolist(), strict=True)), abs=1e-4)
    best = max(answer, key=lambda item: answer[item])
    assert best not in dict(recommender.recommend(history, 99, exclude=[best]))
    assert list(dict(recommender.recommend(history, 99, candidates=[best, "item 39"]))) == [best, "item 39"]
    stock = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = stock(input_ids=torch.tensor(np.array(tokens))).logits[0, -1, FIRST_ITEM_ID:]
    torch.testing.assert_close(recommender.scorer.scores(tokens)[0], logits, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="needs the scores of all items"):
        recommender.build_index([history])


def test_blend_is_removed(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "window 3, weight 0.8, power 0.7; `rules.safetensors`" in card and "| with rules |" not in card
    save_blend(folder, None)
    assert read_info(folder).blend is None and not (folder / RULES_FILE).exists()
    assert "rules" not in (folder / "README.md").read_text(encoding="utf-8")
    assert Recommender.from_pretrained(folder).blended is None


def test_damaged_rules_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="rules of 40 items and the tokenizer has 41"):
        read_links(folder, 41)
    (folder / RULES_FILE).write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="damaged"):
        Recommender.from_pretrained(folder)
    (folder / RULES_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"has no rules.safetensors although its recbert.json"):
        Recommender.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"window": 0}, "window is 0"), ({"weight": 1.0}, "weight is 1.0"), ({"power": 0.0}, "power is 0.0")],
)
def test_blends_out_of_range_are_refused(change: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(Blend(5, 0.5, 0.7), **change)
