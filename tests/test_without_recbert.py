"""A checkpoint is a plain transformers one: a process without recbert gets the same recommendations."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recbert.recommender import Recommender
from recbert.tokenizer import escape_item
from tests.workspace import ITEMS, World, build_world

HISTORY = ["a cup", "never seen", "50% tea", "[MASK]", "ünï", "x,y", "🍵"]

STRANGER = """
import contextlib, io, json, sys
sys.modules["recbert"] = None  # any import of recbert fails
jobs, fill_mask = json.loads(sys.stdin.read())
answers = []
for snippet, folder, history in jobs:
    sys.argv = ["snippet.py", folder, *history]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(snippet, "snippet.py", "exec"), {"__name__": "__main__"})
    answers.append(printed.getvalue())
from transformers import pipeline
filled = pipeline("fill-mask", model=fill_mask[0], device="cpu")(fill_mask[1], top_k=5)
print(json.dumps({"answers": answers, "filled": [row["token_str"] for row in filled]}))
"""
"""Runs the programs of model cards, one after the other, and a fill-mask pipeline, in one process."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def card_program(checkpoint: Path) -> str:
    """The program in a checkpoint's model card that does without recbert."""
    blocks = re.findall(
        r"```python\n(.*?)```", (checkpoint / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    (program,) = (block for block in blocks if "import recbert" not in block)
    assert len(program.splitlines()) <= 20
    return str(program)


@pytest.fixture(scope="module")
def stranger(world: World) -> Any:
    """What a process without recbert makes of the three checkpoints."""
    jobs = [(card_program(folder), str(folder), HISTORY) for folder in (world.gpt2, world.bert, world.lora)]
    query = " ".join(escape_item(item) for item in ["jam", "pan"]) + " [MASK]"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STRANGER],
        input=json.dumps([jobs, (str(world.bert), query)]),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["gpt2", "bert", "lora"])
def test_program_of_the_card_gives_the_ten_best_items(world: World, stranger: Any, kind: str) -> None:
    answer = stranger["answers"][["gpt2", "bert", "lora"].index(kind)].splitlines()
    expected = Recommender.from_pretrained(world.folder / kind / "model").recommend(HISTORY, 10)
    assert [line.rpartition(" ")[0] for line in answer] == [item for item, _ in expected]
    scores = [float(line.rpartition(" ")[2]) for line in answer]
    assert scores == pytest.approx([score for _, score in expected], abs=1e-5)


def test_fill_mask_names_items(world: World, stranger: Any) -> None:
    recommender = Recommender.from_pretrained(world.bert)
    expected = [item for item, _ in recommender.recommend(["jam", "pan"], 99, filter_seen=False)]
    named = [token for token in stranger["filled"] if token in {escape_item(item) for item in ITEMS}]
    assert len(named) >= 3  # a model of two epochs may still fill in a special token
    assert named == [escape_item(item) for item in expected[: len(named)]]
