"""`recbert doctor`: versions, devices, and a self-test that trains, saves, loads and recommends."""

import argparse
import contextlib
import importlib.metadata
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch

from recbert.models import build_model
from recbert.objectives import NextItem
from recbert.recommender import Recommender
from recbert.tokenizer import ItemTokenizer
from recbert.training import RecTrainer, RecTrainingArguments

PACKAGES = (
    "recbert",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "peft",
    "evaluate",
    "narwhals",
    "polars",
    "numpy",
)


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        0, or 1 when the self-test failed.
    """
    parser = argparse.ArgumentParser(prog="recbert doctor", description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    report: dict[str, object] = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "threads": torch.get_num_threads(),
    }
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the Trainer prints
            report["self_test"] = _self_test()
    except (ValueError, RuntimeError, OSError) as error:
        report["self_test"] = f"failed: {error}"
    report["self_test_seconds"] = round(time.perf_counter() - start, 1)
    if options.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        for name, value in report.items():
            shown = (
                ", ".join(f"{key} {part}" for key, part in value.items())
                if isinstance(value, dict)
                else value
            )
            sys.stdout.write(f"{name:18} {shown}\n")
    return 0 if report["self_test"] == "passed" else 1


def _version(package: str) -> str:
    """Give the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    """Give the names of the devices that torch can use."""
    return ["cpu", *(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))]


def _self_test() -> str:
    """Learn that items follow one another in a circle, through a saved checkpoint."""
    items = [f"item {number}" for number in range(12)]
    tokenizer = ItemTokenizer.from_items(items)
    circle = tokenizer.encode(items * 3)
    rows = [
        {"user_id": str(start), "input_ids": circle[start : start + 20], "timestamps": list(range(20)),
         "is_target": [True] * 20}
        for start in range(12)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        arguments = RecTrainingArguments(
            output_dir=folder,
            num_train_epochs=30,
            learning_rate=1e-2,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            load_best_model_at_end=False,
            logging_strategy="no",
            use_cpu=not torch.cuda.is_available(),
        )
        model = build_model(
            "gpt2", tokenizer, hidden_size=32, num_hidden_layers=1, dropout=0.0, max_length=20
        )
        trainer = RecTrainer(model, arguments, objective=NextItem(tokenizer, 20), data={"train": rows})
        trainer.train()
        trainer.save_model(str(Path(folder, "model")))
        answer = Recommender.from_pretrained(Path(folder, "model")).recommend(["item 4", "item 5"], 1)
    return "passed" if answer[0][0] == "item 6" else f"failed: expected 'item 6', got {answer}"
