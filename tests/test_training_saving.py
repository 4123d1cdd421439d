"""What the trainer saves: plain checkpoints, adapters of a base, nothing half-made."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
)

from recbert.adapters import add_lora
from recbert.checkpoint import Anchoring, CheckpointInfo, hash_base, read_info
from recbert.models import build_model
from recbert.objectives import NextItem
from recbert.recommender import Recommender
from recbert.training import Provenance, RecTrainer
from tests.training_runs import (
    BEST_EPOCH,
    ITEMS,
    MAX_LENGTH,
    OBJECTIVES,
    TOKENIZER,
    TRAIN,
    VALID,
    circle_row,
    figures,
    losses,
    tiny_arguments,
    tiny_model,
    tiny_objective,
    tiny_trainer,
    weights,
)

# peft 0.21 asks transformers 5.23 for it.
HUSHED = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def _order(model: PreTrainedModel, history: list[str], objective: str) -> list[str]:
    """The ranking of all items by plain transformers."""
    tokens = TOKENIZER.encode(history)
    tokens = tokens[-MAX_LENGTH:] if objective == "next-item" else [*tokens[1 - MAX_LENGTH :], 2]
    with torch.no_grad():
        scores = model.eval()(input_ids=torch.tensor([tokens])).logits[0, -1, 69:]
    return [ITEMS[index] for index in scores.argsort(descending=True)]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_saved_folder_is_a_plain_transformers_checkpoint(objective: str, tmp_path: Path) -> None:
    trainer = RecTrainer(
        tiny_model(objective),
        tiny_arguments(tmp_path / "run", **BEST_EPOCH),
        objective=tiny_objective(objective),
        data={"train": TRAIN, "valid": VALID},
        provenance=Provenance("leave-one-out", "sha256:0", "model:\n  family: gpt2\n"),
    )
    trainer.train()
    folder = tmp_path / "films"
    trainer.save_model(str(folder))
    names = {path.name for path in folder.iterdir()}
    needed = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "recbert.json"}
    assert needed | {"recipe.yaml", "README.md"} <= names
    assert all(Path(name).suffix in {".json", ".safetensors", ".yaml", ".md"} for name in names)
    assert (folder / "recipe.yaml").read_text() == "model:\n  family: gpt2\n"

    auto = AutoModelForCausalLM if objective == "next-item" else AutoModelForMaskedLM
    model, history = auto.from_pretrained(folder), ITEMS[2:5]
    tokens = AutoTokenizer.from_pretrained(folder)(" ".join(item.replace(" ", "%20") for item in history))
    assert tokens["input_ids"] == TOKENIZER.encode(history)
    expected = _order(model, history, objective)
    assert _order(trainer.model, history, objective) == expected
    answer = Recommender.from_pretrained(folder).recommend(history, 12, filter_seen=False)
    assert [item for item, _ in answer] == expected

    info = read_info(folder)
    assert info.input == tiny_objective(objective).input_format
    assert info.popularity == trainer.popularity.tolist()
    assert sum(info.popularity) == sum(len(row["input_ids"]) for row in TRAIN)
    assert (info.data_fingerprint, info.base_hash) == ("sha256:0", None)
    assert "leave-one-out; validation part; " in info.protocol and "are candidates" in info.protocol
    assert info.metrics["ndcg@10"] == trainer.state.best_metric
    assert "leave-one-out" in (folder / "README.md").read_text()


@pytest.mark.parametrize("anchoring", ["left", "right"])
def test_start_token_trains_and_serves_alike(anchoring: Anchoring, tmp_path: Path) -> None:
    objective = NextItem(TOKENIZER, MAX_LENGTH, start_token=True, anchoring=anchoring)
    trainer = RecTrainer(
        tiny_model("next-item"),
        tiny_arguments(tmp_path / "run", num_train_epochs=6),
        objective=objective,
        data={"train": [*TRAIN, circle_row(4, 1)], "valid": VALID},
    )
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]
    trainer.save_model(tmp_path / "films")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "films")
    recommender = Recommender.from_pretrained(tmp_path / "films")
    for history in (ITEMS[2:5], ITEMS[1:] + ITEMS[:2]):
        tokens = [3, *TOKENIZER.encode(history)[1 - MAX_LENGTH :]]
        first = 0 if anchoring == "left" else MAX_LENGTH - len(tokens)
        positions = torch.arange(first, first + len(tokens))[None]
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([tokens]), position_ids=positions).logits[0, -1, 69:]
        answer = recommender.recommend(history, 12, filter_seen=False)
        assert [item for item, _ in answer] == [ITEMS[index] for index in scores.argsort(descending=True)]
        assert answer == _answer(trainer, history)


def _answer(trainer: RecTrainer, history: list[str]) -> list[tuple[str, float]]:
    """What the model in memory recommends."""
    info = CheckpointInfo(trainer.objective.input_format, trainer.popularity)
    return Recommender(trainer.model, TOKENIZER, info).recommend(history, 12, filter_seen=False)


def test_saved_metrics_have_intervals_of_the_model_that_is_saved(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "run")
    trainer.train()
    trainer.save_model(tmp_path / "films")
    metrics = read_info(tmp_path / "films").metrics
    assert metrics["ndcg@10"] == figures(trainer)[-1]["eval_ndcg@10"]
    assert metrics["ndcg@10_low"] <= metrics["ndcg@10"] <= metrics["ndcg@10_high"]


def test_test_figures_never_stand_under_the_validation_protocol(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "run")
    trainer.train()
    trainer.save_model(tmp_path / "before")
    trainer.evaluate(VALID[:2])  # another part, looked at by hand
    trainer.save_model(tmp_path / "after")
    before, after = read_info(tmp_path / "before"), read_info(tmp_path / "after")
    assert (after.metrics, after.protocol) == (before.metrics, before.protocol)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failed_saving_leaves_the_old_checkpoint(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer(tmp_path / "run")
    folder = tmp_path / "films"
    trainer.save_model(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    save = trainer.model.save_pretrained

    def save_half(draft: Path, **_: Any) -> None:
        save(draft)
        (draft / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(trainer.model, "save_pretrained", save_half)
    with pytest.raises(type(error)):
        trainer.save_model(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name != "run"] == ["films"]


@HUSHED
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_lora_run_saves_an_adapter_of_its_base(objective: str, tmp_path: Path) -> None:
    base_folder, folder = tmp_path / "base", tmp_path / "adapter"
    tiny_trainer(tmp_path / "run", objective).save_model(base_folder)
    auto = AutoModelForCausalLM if objective == "next-item" else AutoModelForMaskedLM
    base_weights = weights(auto.from_pretrained(base_folder))
    model: Any = add_lora(auto.from_pretrained(base_folder), r=4)
    trainer = tiny_trainer(tmp_path / "run", objective, model=model, num_train_epochs=4, **BEST_EPOCH)
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]
    trainer.save_model(folder)
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "recbert.json"} <= names
    assert not names & {"training_args.bin", "model.safetensors", "config.json"}
    assert read_info(folder).base_hash == hash_base(base_folder)
    assert str(base_folder) in (folder / "README.md").read_text()

    plain = auto.from_pretrained(base_folder)
    assert all(torch.equal(weight, base_weights[name]) for name, weight in weights(plain).items())
    history = ITEMS[4:7]
    before = _order(plain, history, objective)
    adapted = PeftModel.from_pretrained(plain, folder)
    expected = _order(adapted, history, objective)
    assert expected != before
    assert _order(trainer.model, history, objective) == expected
    answer = Recommender.from_pretrained(folder).recommend(history, 12, filter_seen=False)
    assert [item for item, _ in answer] == expected


def test_recurrent_baseline_trains_and_saves_like_the_others(tmp_path: Path) -> None:
    model = build_model(
        "gru", TOKENIZER, hidden_size=16, num_hidden_layers=1, dropout=0.0, max_length=MAX_LENGTH
    )
    trainer = tiny_trainer(tmp_path / "run", model=model, num_train_epochs=6, **BEST_EPOCH)
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]
    trainer.save_model(tmp_path / "gru")
    shutil.rmtree(tmp_path / "run")
    (best, _), *_ = Recommender.from_pretrained(tmp_path / "gru").recommend(ITEMS[:3], 5)
    assert best in ITEMS


def test_training_and_serving_need_no_data_frame_library(tmp_path: Path) -> None:
    """As on a training image that lacks them."""
    program = f"""
import sys
for name in ("polars", "datasets", "evaluate", "narwhals", "duckdb", "pandas", "matplotlib"):
    sys.modules[name] = None
import recbert.hub, recbert.recommender, recbert.baselines
from pathlib import Path
from tests.training_runs import tiny_trainer
folder = Path({str(tmp_path)!r})
trainer = tiny_trainer(folder / "run", num_train_epochs=1)
trainer.train()
trainer.save_model(folder / "model")
recommender = recbert.recommender.Recommender.from_pretrained(folder / "model")
print(len(recommender.recommend(["item 03"], 5)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "5"
    assert json.loads((tmp_path / "model" / "recbert.json").read_text())["format_version"] == 1
