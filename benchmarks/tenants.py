"""Adapters resident on one base: memory and load time of each, swap time, and whether answers stay exact.

python -m benchmarks.tenants --adapters 50 --items 12000 --width 64 --own 20
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.growing import save_base
from recbert.adapters import add_lora, save_adapter
from recbert.checkpoint import hash_base, read_info, write_info
from recbert.growth import grow_tables
from recbert.recommender import Recommender, load_weights
from recbert.tokenizer import ItemTokenizer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--adapters", type=int, default=50)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--own", type=int, default=20, help="items that each adapter brings")
    parser.add_argument("--requests", type=int, default=1_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        base = save_base(Path(folder, "base"), options.items, options.width)
        names = [f"tenant {number}" for number in range(options.adapters)]
        for number, name in enumerate(names):
            save_tenant(Path(folder, name), base, options.own, number)
        requests = draw_requests(options, names)
        alone = answer_alone(folder, base, names, requests)
        recommender = Recommender.from_pretrained(base)
        recommender.load_adapter("first", Path(folder, names[0]))
        recommender.unload_adapter("first")
        before, start = resident(), time.perf_counter()
        for name in names:
            recommender.load_adapter(name, Path(folder, name))
        load = (time.perf_counter() - start) / len(names)
        size = Path(folder, names[0], "adapter_model.safetensors").stat().st_size
        memory = (resident() - before) / len(names)
        print(f"adapter file: {size:,} bytes; in memory: {memory:.0f} KiB; loading one: {load * 1e3:.0f} ms")
        answers = [recommender.recommend(history, 10, adapter=name) for name, history in requests]
        equal = sum(one == other for one, other in zip(answers, alone, strict=True))
        print(f"{equal} of {len(requests)} interleaved answers equal those of the adapter alone")
        swap, same = time_swaps(recommender, names)
        print(
            f"an answer after a swap: {swap * 1e3:.2f} ms, from the same adapter again: {same * 1e3:.2f} ms"
        )


def save_tenant(folder: Path, base: Path, own: int, seed: int) -> None:
    """Write an adapter with random weights and rows of its own."""
    info = read_info(base)
    model = load_weights(base, info)
    grow_tables(model, own)
    adapted = add_lora(model, r=4, new_rows=own)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.2, generator=generator)
    save_adapter(adapted, folder)
    tokenizer = ItemTokenizer.from_pretrained(base)
    tokenizer.with_items([f"own {seed} {number}" for number in range(own)]).save_pretrained(folder)
    changes = {"own_items": own, "base_hash": hash_base(base), "popularity": [*info.popularity, *[1] * own]}
    write_info(folder, type(info)(**{**vars(info), **changes}))


def draw_requests(options: argparse.Namespace, names: list[str]) -> list[tuple[str, list[str]]]:
    """Draw who asks, with a history of twenty items and one of the tenant's own."""
    rng = np.random.default_rng(0)
    requests = []
    for _ in range(options.requests):
        number = int(rng.integers(len(names)))
        history = [f"item {item:06d}" for item in rng.integers(0, options.items, 20)]
        requests.append((names[number], [*history, f"own {number} {rng.integers(options.own)}"]))
    return requests


def answer_alone(
    folder: str, base: Path, names: list[str], requests: list[tuple[str, list[str]]]
) -> list[list[tuple[str, float]]]:
    """Answer the requests of each adapter by a recommender that has no other."""
    answers: dict[int, list[tuple[str, float]]] = {}
    for name in names:
        recommender = Recommender.from_pretrained(base)
        recommender.load_adapter(name, Path(folder, name))
        for place, (asked, history) in enumerate(requests):
            if asked == name:
                answers[place] = recommender.recommend(history, 10, adapter=name)
    return [answers[place] for place in range(len(requests))]


def time_swaps(recommender: Recommender, names: list[str], rounds: int = 300) -> tuple[float, float]:
    """Median seconds of an answer when the adapter changes with every request, and when it never does."""
    times = []
    for swaps in (True, False):
        found = []
        for number in range(rounds):
            start = time.perf_counter()
            recommender.recommend(["item 000001"], 10, adapter=names[number % len(names) if swaps else 0])
            found.append(time.perf_counter() - start)
        times.append(float(np.median(found)))
    return times[0], times[1]


def resident() -> float:
    """Memory that this process holds now, in KiB."""
    fields = Path("/proc/self/status").read_text().split()
    return float(fields[fields.index("VmRSS:") + 1])


if __name__ == "__main__":
    main()
