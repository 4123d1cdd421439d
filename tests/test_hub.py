import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedModel

from recbert import hub
from recbert.baselines import ItemLinks
from recbert.checkpoint import Blend, CheckpointInfo, InputFormat, write_info
from recbert.checkpoint.card import build_model_card
from recbert.recommender import save_blend
from recbert.tokenizer import ItemTokenizer
from tests.hub_server import HubServer, serve_hub

PUSH_AND_LOAD = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from recbert.checkpoint import read_info
from recbert.hub import fetch, push_to_hub
from recbert.recommender import Recommender

folder, repo_id = sys.argv[1:]
page = push_to_hub(folder, repo_id, private=True)
again = push_to_hub(folder, repo_id)
model = AutoModelForCausalLM.from_pretrained(repo_id)
tokenizer = AutoTokenizer.from_pretrained(repo_id)
local = AutoModelForCausalLM.from_pretrained(folder)
fetched = fetch(repo_id)
first = Recommender.from_pretrained(repo_id).recommend(["tea", "cup"], 1)
print(json.dumps({
    "page": page, "again": again,
    "equal": all(torch.equal(a, b) for a, b in zip(model.parameters(), local.parameters(), strict=True)),
    "tokens": tokenizer("cup tea").input_ids,
    "same_answer": first == Recommender.from_pretrained(folder).recommend(["tea", "cup"], 1),
    "max_length": read_info(repo_id).input.max_length,
    "fetched": sorted(path.name for path in fetched.iterdir()),
}))
"""

ADAPTER = """
import json, sys
import torch
from peft import AutoPeftModel
from recbert.adapters import add_lora, save_adapter
from recbert.checkpoint import CheckpointInfo, base_hash, read_info, write_info
from recbert.growth import grow_tables
from recbert.hub import push_to_hub
from recbert.recommender import Recommender, load_weights
from recbert.tokenizer import ItemTokenizer

base, folder = sys.argv[1:]
push_to_hub(base, "tester/base")
info = read_info("tester/base")
model = load_weights("tester/base", info)
grow_tables(model, 1)
adapted = add_lora(model, r=2, new_rows=1)
for parameter in adapted.parameters():
    if parameter.requires_grad:
        torch.nn.init.normal_(parameter)
save_adapter(adapted, folder)
ItemTokenizer.from_pretrained("tester/base").with_items(["new"]).save_pretrained(folder)
own = {"own_items": 1, "base_hash": base_hash("tester/base"), "blend": None}
own["popularity"] = [*info.popularity, 1]
write_info(folder, CheckpointInfo(**{**vars(info), **own}))
open(folder + "/README.md", "w").write("an adapter")
push_to_hub(folder, "tester/adapter")
alone = Recommender.from_pretrained("tester/adapter").recommend(["tea", "new"], 9)
beside = Recommender.from_pretrained("tester/base")
beside.load_adapter("a", "tester/adapter")
answer = beside.recommend(["tea", "new"], 9, adapter="a")
print(json.dumps({
    "items": sorted(item for item, _ in alone),
    "same": [item for item, _ in answer] == [item for item, _ in alone],
    "rows": AutoPeftModel.from_pretrained("tester/adapter").get_base_model().config.vocab_size,
}))
"""

FAILURES = """
import sys
from recbert.hub import fetch, push_to_hub

folder = sys.argv[1]
for call in (
    lambda: fetch("tester/absent"),
    lambda: fetch("tester/films", revision="no-such-branch"),
    lambda: push_to_hub(folder, "tester/new", token="hf_wrong"),
    lambda: push_to_hub(folder, "not//valid"),
):
    try:
        call()
    except (ValueError, FileNotFoundError) as error:
        print(type(error).__name__, str(error).replace(chr(10), " "), sep="|")
"""


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_gpt2: PreTrainedModel, tokenizer: ItemTokenizer) -> Path:
    """A saved checkpoint with the litter of a training run beside it."""
    folder = tmp_path / "films"
    tiny_gpt2.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    info = CheckpointInfo(InputFormat("next-item", max_length=16), popularity=[4, 2, 1, 2, 4])
    write_info(folder, info)
    (folder / "README.md").write_text(build_model_card(info, {"model_type": "gpt2"}))
    rules = ItemLinks(np.array([0, 1, 1, 1, 1, 1]), np.array([3]), np.array([1.0]))
    save_blend(folder, Blend(window=5, weight=0.9, power=0.7), rules)
    for litter in (
        "training_args.bin",
        "optimizer.pt",
        "events.parquet",
        ".env",
        "model_old.safetensors",
        "code.py",
    ):
        (folder / litter).write_bytes(b"private")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "model.safetensors").write_bytes(b"private")
    return folder


def run(program: str, server: HubServer, home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        capture_output=True,
        text=True,
        env=server.environment(home),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_push_then_load_by_id(checkpoint: Path, tmp_path: Path) -> None:
    published = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "recbert.json",
        "rules.safetensors",
        "README.md",
    }
    with serve_hub() as server:
        answer = json.loads(run(PUSH_AND_LOAD, server, tmp_path / "home", str(checkpoint), "tester/films"))
        assert set(server.files("tester/films")) == published
        assert server.repositories["models", "tester/films"].private
        assert not [
            request for request in server.requests if "training_args" in request and "POST" in request
        ]
    assert answer == {
        "page": f"{server.url}/tester/films",
        "again": f"{server.url}/tester/films",
        "equal": True,
        "tokens": [69, 73],
        "same_answer": True,
        "max_length": 16,
        "fetched": sorted(published),
    }


def test_an_adapter_with_items_of_its_own_goes_to_the_hub_and_back(checkpoint: Path, tmp_path: Path) -> None:
    with serve_hub() as server:
        answer = json.loads(
            run(ADAPTER, server, tmp_path / "home", str(checkpoint), str(tmp_path / "adapter"))
        )
        published = set(server.files("tester/adapter"))
    assert answer == {"items": ["cup", "jam", "pan", "pot"], "same": True, "rows": 69 + 6}
    assert {"adapter_model.safetensors", "adapter_config.json", "recbert.json", "tokenizer.json"} <= published
    assert not any("model.safetensors" == name for name in published)


def test_the_hubs_refusals_become_one_clear_message(checkpoint: Path, tmp_path: Path) -> None:
    with serve_hub() as server:
        server.add("tester/films", {"README.md": b"here"})
        lines = run(FAILURES, server, tmp_path / "home", str(checkpoint)).splitlines()
    kinds, messages = zip(*(line.split("|", 1) for line in lines), strict=True)
    assert kinds == ("FileNotFoundError", "FileNotFoundError", "ValueError", "ValueError"), messages
    for message, part in zip(
        messages, ("tester/absent", "no-such-branch", "hf auth login", "not//valid"), strict=True
    ):
        assert part in message


def test_offline_is_said_plainly(checkpoint: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not in the cache"):
        hub.fetch("tester/films")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE"):
        hub.push_to_hub(checkpoint, "tester/films")


@pytest.mark.parametrize("absent", ["config.json", "model.safetensors", "tokenizer.json", "recbert.json"])
def test_half_a_checkpoint_is_not_pushed(checkpoint: Path, absent: str) -> None:
    (checkpoint / absent).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks .*{absent}"):
        hub.push_to_hub(checkpoint, "tester/films")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        hub.push_to_hub(tmp_path / "nowhere", "tester/films")
