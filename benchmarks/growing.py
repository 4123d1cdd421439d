"""A catalogue grown in one step: seconds and peak memory of adding items, saving and loading, and old scores.

python -m benchmarks.growing --items 12000 --grown 1000000 --width 64
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from recbert.checkpoint import CheckpointInfo, InputFormat
from recbert.checkpoint.saving import write_checkpoint
from recbert.models import build_model
from recbert.recommender import Recommender
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer


def main() -> None:
    """Measure and print one row a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--grown", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        base = save_base(Path(folder, "base"), options.items, options.width)
        recommender = Recommender.from_pretrained(base)
        rng = np.random.default_rng(0)
        histories = [rng.integers(0, options.items, 20) + FIRST_ITEM_ID for _ in range(64)]
        before = recommender.scorer.scores(histories)
        new = [f"new {number}" for number in range(options.grown - options.items)]
        print("| step | seconds | peak MiB above the step before |\n|---|---:|---:|")
        with measured("add_items"):
            recommender.add_items(new)
        with measured("save_pretrained"):
            recommender.save_pretrained(Path(folder, "grown"))
        del recommender
        with measured("from_pretrained"):
            recommender = Recommender.from_pretrained(Path(folder, "grown"))
        after = recommender.scorer.scores(histories)[:, : options.items]
        size = Path(folder, "grown", "model.safetensors").stat().st_size
        equal = torch.equal(before, after)
        print(f"\nweights {size / 2**20:.0f} MiB; old scores of 64 histories equal: {equal}")


@contextmanager
def measured(step: str) -> Iterator[None]:
    """Print the time of a block, and how far it lifted the peak memory of the process."""
    start, peak = time.perf_counter(), memory()
    yield
    print(f"| {step} | {time.perf_counter() - start:.1f} | {memory() - peak:.0f} |", flush=True)


def memory() -> float:
    """The peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def save_base(folder: Path, items: int, width: int) -> Path:
    """Write a checkpoint with random weights."""
    tokenizer = ItemTokenizer.from_items(f"item {number:06d}" for number in range(items))
    model = build_model("gpt2", tokenizer, hidden_size=width, dropout=0.0, max_length=50)
    info = CheckpointInfo(InputFormat("next-item", 50), [1] * items)
    folder.mkdir(parents=True)
    write_checkpoint(folder, model, tokenizer, info)
    return folder


if __name__ == "__main__":
    main()
