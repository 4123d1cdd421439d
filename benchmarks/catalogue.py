"""What an item table split over two processes costs at ten million items, beside one process.

Run `python benchmarks/catalogue.py FOLDER`; FOLDER needs 6 GB of disk, the machine 9 GB of memory (a fiftieth
of both with `--items 200000`). Each phase runs in fresh processes, once in one and once in two (gloo), and
prints the highest peak of a process:

- vocabulary: the memory-mapped index of all item ids is built and written;
- train: a two-layer GPT-2 with fresh rows takes steps of the sampled softmax and writes a checkpoint;
- rank: the checkpoint is loaded and gives the best items of 64 histories over the whole catalogue;
- plain: transformers loads the same checkpoint unsplit; its scores are compared with those of two processes.
"""

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed
from transformers import AutoModelForCausalLM, set_seed

from recbert.backends import CHUNK_ROWS, TorchScorer
from recbert.checkpoint import CheckpointInfo, InputFormat, read_info, write_info
from recbert.evaluation import best_items, slice_items
from recbert.inputs import TokenIds
from recbert.models import build_model, hidden_only, item_table
from recbert.objectives import SampledSoftmax, UniformSampler
from recbert.sharding import (
    RowwiseAdam,
    clip_gradients,
    item_mesh,
    item_tables,
    load_sharded,
    shard_items,
    write_tables,
)
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

LENGTH, ROWS, NEGATIVES, HISTORIES, BEST = 50, 64, 256, 64, 100


def main() -> None:
    """Run all phases, or one of them where this is a process of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--phase", choices=sorted(PHASES))
    options = parser.parse_args()
    if options.phase is None:
        run_all(options)
        return
    torch.set_num_threads(1)
    figures = PHASES[options.phase](options)
    figures["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("FIGURES " + json.dumps(figures), flush=True)
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def run_all(options: argparse.Namespace) -> None:
    """Run the phases one after the other and print their figures."""
    options.folder.mkdir(parents=True, exist_ok=True)
    peaks: dict[tuple[str, int], float] = {}
    for phase, worlds in {"vocabulary": (1,), "train": (1, 2), "rank": (1, 2), "plain": (1,)}.items():
        for world in worlds:
            figures = run_phase(options, phase, world)
            peaks[phase, world] = figures["peak MB"]
            told = ", ".join(f"{name} {value:,.3g}" for name, value in figures.items() if name != "peak MB")
            print(f"{phase:>10} in {world}: peak {figures['peak MB']:,.0f} MB a process, {told}", flush=True)
    for phase in ("train", "rank"):
        print(f"{phase}: peak of two processes / of one: {peaks[phase, 2] / peaks[phase, 1]:.1%}")
    one, two, plain = (np.load(options.folder / f"best-{name}.npz") for name in ("1", "2", "plain"))
    for name, other in (("one process", one), ("the unsplit model", plain)):
        same = all(np.array_equal(two[part], other[part]) for part in ("scores", "items"))
        apart = np.abs(two["scores"] - other["scores"]).max()
        print(f"two processes against {name}: {'equal to the last bit' if same else f'{apart:.1e} apart'}")


def run_phase(options: argparse.Namespace, phase: str, world: int) -> dict[str, float]:
    """Run one phase in fresh processes and give the highest of each of their figures."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
    sizes = [f"--items={options.items}", f"--width={options.width}", f"--steps={options.steps}"]
    command = [*launcher, __file__, str(options.folder), *sizes, f"--phase={phase}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = re.findall(r"FIGURES (\{.*?\})", done.stdout)  # the processes may share a line
    if done.returncode or len(lines) != world:
        raise SystemExit(f"{phase} in {world} processes failed:\n{done.stderr[-4000:]}")
    figures: list[dict[str, float]] = [json.loads(line) for line in lines]
    return {name: max(each[name] for each in figures) for name in figures[0]}


def build_vocabulary(options: argparse.Namespace) -> dict[str, Any]:
    """Index ids like those of a shop, and count every item once."""
    ids = [f"B{number * 2654435761 % (1 << 40):011X}" for number in range(options.items)]
    start = time.perf_counter()
    tokenizer = ItemTokenizer.from_items(ids)
    tokenizer.save_pretrained(options.folder)
    seconds = time.perf_counter() - start
    info = CheckpointInfo(InputFormat("next-item", LENGTH), np.ones(options.items, dtype=np.int64))
    write_info(options.folder, info)
    return {"seconds": seconds}


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Draw a table, take some steps and save."""
    distributed.init_process_group("gloo")
    world, place = distributed.get_world_size(), distributed.get_rank()
    set_seed(0)
    start = time.perf_counter()
    model = build_model("gpt2", ItemTokenizer(["any"]), hidden_size=options.width, max_length=LENGTH)
    shard_items(model, FIRST_ITEM_ID + options.items, item_mesh(), seed=0)
    drawn = time.perf_counter() - start
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    adam, rows = torch.optim.AdamW(model.parameters(), lr=1e-3), RowwiseAdam(item_tables(model))
    loss = SampledSoftmax(NEGATIVES, sampler=UniformSampler(options.items))
    random = torch.Generator().manual_seed(place)
    losses, start = [], time.perf_counter()
    for step in range(options.steps + 1):
        if step == 1:
            start = time.perf_counter()  # the first step allocates
        skewed = (torch.rand(ROWS, LENGTH + 1, generator=random) ** 8 * options.items).long()
        tokens = FIRST_ITEM_ID + skewed.clamp(max=options.items - 1)
        with hidden_only(model):
            hidden = wrapped(input_ids=tokens[:, :-1], use_cache=False).logits
        total = loss(hidden.flatten(0, 1), *item_table(model), tokens[:, 1:].flatten()) / (ROWS * LENGTH)
        total.backward()
        clip_gradients(model.parameters(), item_tables(model), 1.0)
        adam.step()
        rows.step(1e-3, step + 1)
        adam.zero_grad()
        losses.append(total.item())
    seconds = (time.perf_counter() - start) / options.steps
    checkpoint = options.folder / f"model-{world}"
    start = time.perf_counter()
    if place == 0:
        shutil.rmtree(checkpoint, ignore_errors=True)
        model.save_pretrained(checkpoint)
    distributed.barrier()
    write_tables(model, checkpoint)
    saved = time.perf_counter() - start
    if place == 0 and world == 2:
        shutil.rmtree(checkpoint)  # the one of one process serves the other phases
    return {"s to draw": drawn, "s a step": seconds, "last loss": losses[-1], "s to save": saved}


def rank(options: argparse.Namespace) -> dict[str, Any]:
    """Load the checkpoint split and list the best items."""
    distributed.init_process_group("gloo")
    start = time.perf_counter()
    tokenizer = ItemTokenizer.from_pretrained(options.folder)
    vocabulary = time.perf_counter() - start
    info = read_info(options.folder)
    model = load_sharded(options.folder / "model-1", item_mesh(), objective="next-item")
    loaded = time.perf_counter() - start
    histories = ask(tokenizer)
    scorer = TorchScorer(model, info.input, [1])
    table = slice_items(*item_table(model), tokenizer.num_items)
    start = time.perf_counter()
    scores, items = best_items(scorer.vectors(histories), table, BEST)
    seconds = time.perf_counter() - start
    np.savez(options.folder / f"best-{distributed.get_world_size()}.npz", scores=scores, items=items)
    return {"s to load the vocabulary": vocabulary, "s to load all": loaded, "s to rank": seconds}


@torch.no_grad()
def plain(options: argparse.Namespace) -> dict[str, Any]:
    """Load the checkpoint as transformers does and score every item, without the split table's code."""
    tokenizer = ItemTokenizer.from_pretrained(options.folder)
    started = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(options.folder / "model-1").eval()
    loaded = time.perf_counter() - started
    scorer = TorchScorer(model, read_info(options.folder).input, np.ones(tokenizer.num_items))
    vectors, (weight, _) = scorer.vectors(ask(tokenizer)), scorer.item_vectors()
    scores, items = torch.empty(HISTORIES, 0), torch.empty(HISTORIES, 0, dtype=torch.int64)
    for start in range(0, len(weight), CHUNK_ROWS):  # all scores at once would take another 5 GB
        chunk = weight[start : start + CHUNK_ROWS]
        filled = torch.nn.functional.pad(chunk, (0, 0, 0, CHUNK_ROWS - len(chunk)))
        found = (vectors @ filled.T)[:, : len(chunk)].topk(min(BEST, len(chunk)))
        scores, items = torch.cat([scores, found.values], 1), torch.cat([items, start + found.indices], 1)
        scores, order = scores.sort(descending=True, stable=True)
        scores, items = scores[:, :BEST], items.gather(1, order)[:, :BEST]
    np.savez(options.folder / "best-plain.npz", scores=scores, items=items)
    return {"s to load": loaded}


def ask(tokenizer: ItemTokenizer) -> list[TokenIds]:
    """Give histories of 20 random items, by way of their ids."""
    random = np.random.default_rng(1)
    numbers = random.integers(tokenizer.num_items, size=(HISTORIES, 20))
    return [
        np.array(tokenizer.encode([tokenizer.item_ids[int(number)] for number in row])) for row in numbers
    ]


PHASES = {"vocabulary": build_vocabulary, "train": train, "rank": rank, "plain": plain}

if __name__ == "__main__":
    main()
