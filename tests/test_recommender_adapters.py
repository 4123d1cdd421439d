"""Many adapters on one base under a Recommender."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recbert.adapters import add_lora, save_adapter
from recbert.checkpoint import CheckpointInfo, InputFormat, hash_base, write_info
from recbert.growth import grow_tables
from recbert.recommender import Recommender, load_weights
from recbert.tokenizer import ItemTokenizer
from tests.test_recommender import HISTORY, ITEMS, POPULARITY, save

OWN = {"a": ["own 1", "own 2", "own 3"], "b": ["own 2"], "c": []}


def save_tenant(folder: Path, base: Path, own: list[str], **changes: object) -> Path:
    """An adapter with random weights, trained rows for its own items and a deny-list of one item."""
    tokenizer = ItemTokenizer.from_pretrained(base)
    info = CheckpointInfo(
        InputFormat("next-item", max_length=6),
        [*POPULARITY, *[3] * len(own)],
        deny_list=["b"] if own else [],
        base_hash=hash_base(base),
        own_items=len(own),
    )
    model = load_weights(base, info)
    if own:
        grow_tables(model, len(own))
    adapted = add_lora(model, r=2, new_rows=len(own))
    generator = torch.Generator().manual_seed(len(own))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.5, generator=generator)
    save_adapter(adapted, folder)
    (tokenizer.with_items(own) if own else tokenizer).save_pretrained(folder)
    write_info(folder, CheckpointInfo(**{**vars(info), **changes}))
    return folder


@pytest.fixture(params=["gpt2", "gru"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(tmp_path / "base", request.param)


@pytest.fixture
def tenants(base: Path, tmp_path: Path) -> dict[str, Path]:
    return {name: save_tenant(tmp_path / name, base, own) for name, own in OWN.items()}


@pytest.fixture
def together(base: Path, tenants: dict[str, Path]) -> Recommender:
    recommender = Recommender.from_pretrained(base)
    for name in "cab":
        recommender.load_adapter(name, tenants[name])
    return recommender


def test_interleaved_adapters_answer_as_each_alone(
    base: Path, tenants: dict[str, Path], together: Recommender
) -> None:
    alone = {name: Recommender.from_pretrained(base) for name in (None, *tenants)}
    for name, folder in tenants.items():
        alone[name].load_adapter("only", folder)
    rng = np.random.default_rng(0)
    for _ in range(60):
        name = [None, *tenants][rng.integers(4)]
        known = [*ITEMS, *OWN.get(name, [])]
        history = [known[place] for place in rng.integers(0, len(known), 3)]
        expected = alone[name].recommend(history, 99, adapter=None if name is None else "only")
        assert together.recommend(history, 99, adapter=name) == expected
        owned = {item for item, _ in together.recommend(history, 99, filter_seen=False, adapter=name)}
        assert owned == {*ITEMS, *OWN.get(name, [])} - ({"b"} if OWN.get(name) else set())


def test_an_adapter_beside_others_answers_as_peft_does(
    tenants: dict[str, Path], together: Recommender
) -> None:
    for name, folder in tenants.items():
        answer = dict(Recommender.from_pretrained(folder).recommend(HISTORY, 99, filter_seen=False))
        assert dict(together.recommend(HISTORY, 99, filter_seen=False, adapter=name)) == pytest.approx(
            answer, abs=1e-5
        )


def test_a_batch_mixes_adapters(together: Recommender) -> None:
    batch = [HISTORY, ["own 2", "a"], ["own 2", "a"], HISTORY, ["l"]]
    names = ["a", "a", "b", None, "c"]
    expected = [
        together.recommend(history, 5, adapter=name) for history, name in zip(batch, names, strict=True)
    ]
    answers = together.recommend(batch, 5, adapter=names)
    for answer, one in zip(answers, expected, strict=True):
        assert [item for item, _ in answer] == [item for item, _ in one]
        assert [score for _, score in answer] == pytest.approx([score for _, score in one], abs=1e-5)
    vectors = together.encode([HISTORY], adapter="a"), together.encode([HISTORY])
    assert not torch.allclose(*vectors)


def test_adapters_are_replaced_and_forgotten_without_a_trace(
    base: Path, tenants: dict[str, Path], together: Recommender
) -> None:
    before = {name: together.recommend(HISTORY, 99, adapter=name) for name in (None, *tenants)}
    together.load_adapter("a", tenants["b"])
    assert together.recommend(HISTORY, 99, adapter="a") == before["b"]
    together.unload_adapter("a")
    together.unload_adapter("b")
    with pytest.raises(ValueError, match="adapter='a': choose one of c"):
        together.recommend(HISTORY, adapter="a")
    assert together.recommend(HISTORY, 99, adapter="c") == before["c"]
    assert together.recommend(HISTORY, 99) == before[None]
    together.unload_adapter("c")
    assert together.recommend(HISTORY, 99) == before[None]
    assert Recommender.from_pretrained(base).recommend(HISTORY, 99) == before[None]


def test_what_does_not_fit_is_refused_and_the_others_stay(
    tmp_path: Path, base: Path, tenants: dict[str, Path], together: Recommender
) -> None:
    before = {name: together.recommend(HISTORY, 99, adapter=name) for name in (None, *tenants)}
    other = save(tmp_path / "other", "llama")
    cases = [
        (save_tenant(tmp_path / "1", other, []), "another base"),
        (save_tenant(tmp_path / "2", base, ["x"], own_items=0), "a base with 13 items"),
        (save_tenant(tmp_path / "3", base, [], base_hash=None, format_version=2), "format_version 2"),
        (base, "holds no adapter_config.json"),
        (tmp_path / "nowhere", "nowhere"),
    ]
    for folder, expected in cases:
        with pytest.raises((ValueError, FileNotFoundError), match=expected):
            together.load_adapter("a", folder)
        assert {name: together.recommend(HISTORY, 99, adapter=name) for name in (None, *tenants)} == before
    with pytest.raises(ValueError, match="2 adapters for 1 histories"):
        together.recommend(HISTORY, adapter=["a", "b"])
    for refused in (
        lambda: together.save_pretrained(tmp_path / "saved"),
        lambda: together.add_items(["new"]),
    ):
        with pytest.raises(ValueError, match="load its base alone"):
            refused()
    with pytest.raises(ValueError, match="load the base, then both"):
        Recommender.from_pretrained(tenants["a"]).load_adapter("b", tenants["b"])


def test_a_base_that_held_an_adapter_is_not_saved_over(
    tmp_path: Path, base: Path, tenants: dict[str, Path], together: Recommender
) -> None:
    for name in "abc":
        together.unload_adapter(name)
    for refused in (lambda: together.save_pretrained(base), lambda: together.add_items(["new"])):
        with pytest.raises(ValueError, match="load its base alone"):
            refused()


def test_what_is_left_out_may_be_an_iterator(together: Recommender) -> None:
    names = [None, "c"]
    answers = together.recommend([HISTORY, HISTORY], 99, exclude=iter(ITEMS[:8]), adapter=names)
    assert [len(answer) for answer in answers] == [4, 4]
    answers = together.recommend([HISTORY, HISTORY], 99, candidates=iter(ITEMS[8:]), adapter=names)
    assert [len(answer) for answer in answers] == [4, 4]
