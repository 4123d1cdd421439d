import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import PreTrainedModel

from recbert.checkpoint import Anchoring, CheckpointInfo, InputFormat, write_info
from recbert.checkpoint.card import build_model_card
from recbert.checkpoint.snippet import build_snippet
from recbert.recommender import Recommender
from recbert.tokenizer import BOS_ID, FIRST_ITEM_ID, ItemTokenizer

ITEMS = [
    "a cup",
    "50% tea",
    "[MASK]",
    "ünï",
    "jam",
    "pan",
    "pot",
    "x,y",
    "🍵",
    "é" * 300,
    "oat",
    "rye",
    "fig",
]


def info_for(objective: str, **changes: object) -> CheckpointInfo:
    values = {"input": InputFormat(objective, max_length=4), "popularity": [3] * len(ITEMS), **changes}
    return CheckpointInfo(**values)


def save_checkpoint(
    folder: Path, model: PreTrainedModel, info: CheckpointInfo
) -> tuple[ItemTokenizer, PreTrainedModel]:
    tokenizer = ItemTokenizer.from_items(ITEMS)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_info(folder, info)
    return tokenizer, model


def run_snippet(folder: Path, info: CheckpointInfo, history: list[str]) -> list[tuple[str, float]]:
    """Run the card's program in a process where recbert cannot be imported."""
    source = build_snippet(info, json.loads((folder / "config.json").read_text()))
    guard = "import sys; sys.modules['recbert'] = None\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", guard + source, str(folder), *history],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    rows = [line.rpartition(" ") for line in done.stdout.splitlines()]
    return [(item, float(score)) for item, _, score in rows]


@pytest.mark.parametrize("base", [None, "owner/base"])
@pytest.mark.parametrize("objective", ["masked-item", "next-item"])
@pytest.mark.parametrize("model_type", ["gpt2", "recbert-recurrent"])
def test_snippet_is_short_and_compiles(objective: str, model_type: str, base: str | None) -> None:
    source = build_snippet(info_for(objective), {"model_type": model_type}, base)
    compile(source, "snippet", "exec")
    assert len(source.splitlines()) <= 20
    assert f"scores[:{FIRST_ITEM_ID}]" in source
    assert ("import recbert" in source) == (model_type == "recbert-recurrent")


def test_snippet_gives_the_models_ten_best_items(tmp_path: Path, tiny_bert: PreTrainedModel) -> None:
    info = info_for("masked-item", deny_list=["x,y"])
    tokenizer, model = save_checkpoint(tmp_path, tiny_bert, info)
    history = ["jam", "a cup", "never seen", "50% tea", "[MASK]", "ünï"]
    answer = run_snippet(tmp_path, info, history)

    known = [token for token in tokenizer.encode(history) if token >= FIRST_ITEM_ID]
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([[*known[-3:], 2]])).logits[0, -1]
    free = [i for i in range(FIRST_ITEM_ID, len(tokenizer)) if i not in known + tokenizer.encode(["x,y"])]
    best = sorted(free, key=lambda token: -float(scores[token]))
    listed = answer[: len(best)]  # seven items are free: what follows them scores -inf
    assert [item for item, _ in listed] == tokenizer.decode(best)
    assert [score for _, score in listed] == pytest.approx([float(scores[i]) for i in best], abs=1e-5)
    assert all(score == float("-inf") for _, score in answer[len(best) :])


def test_snippet_may_repeat_seen_items(
    tmp_path: Path,
    tiny_gpt2: PreTrainedModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    info = info_for("next-item", filter_seen=False)
    tokenizer, model = save_checkpoint(tmp_path, tiny_gpt2, info)
    monkeypatch.setattr(sys, "argv", ["snippet.py", str(tmp_path), "jam", "pot"])
    exec(build_snippet(info, {}), {})
    answer = [line.rpartition(" ")[0] for line in capsys.readouterr().out.splitlines()]
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([tokenizer.encode(["jam", "pot"])])).logits[
            0, -1, FIRST_ITEM_ID:
        ]
    assert answer == [tokenizer.item_ids[i] for i in scores.topk(10).indices]


@pytest.mark.parametrize("anchoring", ["left", "right"])
def test_snippet_puts_the_start_token_in_front(
    anchoring: Anchoring,
    tmp_path: Path,
    tiny_gpt2: PreTrainedModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    info = info_for("next-item", input=InputFormat("next-item", 4, anchoring, starts_with_bos=True))
    tokenizer, model = save_checkpoint(tmp_path, tiny_gpt2, info)
    history = ["never seen", "pot", "rye"] if anchoring == "right" else ["oat", "jam", "pot", "rye"]
    monkeypatch.setattr(sys, "argv", ["snippet.py", str(tmp_path), *history])
    exec(build_snippet(info, {}), {})
    printed = [line.rpartition(" ") for line in capsys.readouterr().out.splitlines()]
    expected = Recommender(model, tokenizer, info).recommend(history, 9)
    assert [item for item, _, _ in printed[:9]] == [item for item, _ in expected]
    assert [float(score) for _, _, score in printed[:9]] == pytest.approx([score for _, score in expected])
    with torch.no_grad():
        known = tokenizer.encode(history[-2:] if anchoring == "right" else history[-3:])
        positions = torch.arange(4)[-len(known) - 1 :][None]
        scores = model(input_ids=torch.tensor([[BOS_ID, *known]]), position_ids=positions).logits[0, -1]
    assert expected[0][1] == pytest.approx(float(scores[tokenizer.encode([expected[0][0]])[0]]), abs=1e-5)
    card = build_model_card(info, {"model_type": "gpt2"})
    assert "`[BOS]`, then the latest 3 known items" in card
    assert f"at positions {'..., 2, 3' if anchoring == 'right' else '0, 1, 2, ...'};" in card


def test_card_says_what_counts() -> None:
    metrics = {"ndcg@10": 0.05, "ndcg@10_low": 0.04, "ndcg@10_high": 0.06, "popularity/ndcg@10": 0.01}
    info = info_for(
        "masked-item", metrics=metrics, protocol="leave-one-out, full catalogue", data_fingerprint="sha256:12"
    )
    card = build_model_card(
        info, {"architectures": ["BertForMaskedLM"]}, recipe_text="model:\n  family: bert\n"
    )
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["library_name"] == "transformers"
    assert metadata["pipeline_tag"] == "fill-mask"
    assert "| this model | 0.0500 [0.0400, 0.0600] |" in card
    assert "| popularity | 0.0100 |" in card
    for text in (
        "leave-one-out, full catalogue",
        "sha256:12",
        "family: bert",
        "BertForMaskedLM",
        build_snippet(info, {}),
    ):
        assert text in card


def test_card_of_an_adapter_names_its_base() -> None:
    card = build_model_card(
        info_for("next-item", base_hash="sha256:34"), {"model_type": "gpt2"}, base="owner/base"
    )
    metadata = yaml.safe_load(card.split("---")[1])
    assert (metadata["library_name"], metadata["base_model"]) == ("peft", "owner/base")
    assert "PeftModel" in card and "sha256:34" in card
