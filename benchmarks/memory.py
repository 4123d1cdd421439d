"""Memory and time of a training step over a large catalogue, for each way to compute its loss.

Run `python benchmarks/memory.py` (dense logits at a million items take 15 GB of memory). Each way runs in a
fresh process: a two-layer GPT-2 of width 64 takes two steps with 1,024 labels each, clips and updates.
Printed are the peak of the second step above parameters, gradients and optimiser state, its ratio to that of
dense logits, the peak of the whole process, and the CPU seconds of that step.

- dense: logits of the stock model and `torch.nn.functional.cross_entropy`, AdamW;
- full: recbert's `FullSoftmax`, AdamW;
- sampled: recbert's `SampledSoftmax` with 256 negatives, AdamW;
- rows: the same with a table from `shard_items`, whose rows have their own optimiser.
"""

import argparse
import ctypes
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from recbert.models import build_model, hidden_only, item_table
from recbert.objectives import FullSoftmax, SampledSoftmax, UniformSampler
from recbert.sharding import RowwiseAdam, clip_gradients, item_mesh, item_tables, shard_items
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

WAYS = ("dense", "full", "sampled", "rows")
ROWS, LENGTH, WIDTH, NEGATIVES, STEPS = 32, 32, 64, 256, 2


def main() -> None:
    """Measure all ways, or one of them where this is its process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--way", choices=WAYS)
    options = parser.parse_args()
    if options.way is not None:
        torch.set_num_threads(1)
        print(json.dumps(measure(options.way, options.items)), flush=True)
        return
    dense = 0.0
    for way in WAYS:
        command = [sys.executable, __file__, f"--items={options.items}", f"--way={way}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures: dict[str, float] = json.loads(done.stdout)
        dense = dense or figures["above"]
        print(
            f"{way:>8}: {figures['above']:8,.0f} MB above parameters, gradients and state, dense / it "
            f"{dense / figures['above']:6.1f}; {figures['all']:8,.0f} MB in all; "
            f"{figures['seconds']:.2f} s a step",
            flush=True,
        )


def measure(way: str, items: int) -> dict[str, float]:
    """Give the memory in MB and the CPU seconds of a step."""
    torch.manual_seed(0)
    model = build_model("gpt2", ItemTokenizer(["any"]), hidden_size=WIDTH, max_length=LENGTH)
    if way == "rows":
        shard_items(model, FIRST_ITEM_ID + items, item_mesh(), seed=0)
    else:
        model.resize_token_embeddings(FIRST_ITEM_ID + items, mean_resizing=False)
    tables = item_tables(model)
    adam, rows = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True), RowwiseAdam(tables)
    loss_of, seconds = _losses(way, model, items), 0.0
    for step in range(1, STEPS + 1):
        tokens = torch.randint(FIRST_ITEM_ID, FIRST_ITEM_ID + items, (ROWS, LENGTH + 1))
        if step == STEPS:
            before = _start_peak()
        started = time.process_time()
        loss_of(tokens[:, :-1], tokens[:, 1:]).backward()
        clip_gradients(model.parameters(), tables, 1.0)
        adam.step()
        rows.step(1e-3, step)
        if step == STEPS:
            gradients = sum(parameter.nbytes for parameter in model.parameters()) / 1e6
        adam.zero_grad()
        seconds += (time.process_time() - started) * (step > 1)
    peak = _memory("VmHWM")
    return {"above": peak - before - gradients, "all": peak, "seconds": seconds / (STEPS - 1)}


def _losses(way: str, model: PreTrainedModel, items: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Give the function from inputs and labels, each (B, L), to the mean loss."""

    def dense(inputs: Tensor, labels: Tensor) -> Tensor:
        logits = model(input_ids=inputs, use_cache=False).logits  # (B, L, V)
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    if way == "dense":
        return dense
    loss = FullSoftmax() if way == "full" else SampledSoftmax(NEGATIVES, sampler=UniformSampler(items))

    def of_hidden(inputs: Tensor, labels: Tensor) -> Tensor:
        with hidden_only(model):
            hidden = model(input_ids=inputs, use_cache=False).logits  # (B, L, D)
        return loss(hidden.flatten(0, 1), *item_table(model), labels.flatten()) / labels.numel()

    return of_hidden


def _start_peak() -> float:
    """Give free memory back, forget the peak so far and give the memory in MB."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(name: str) -> float:
    """Give a figure of this process in MB."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
