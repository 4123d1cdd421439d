"""What fits where: bytes, FLOPs and time of next-item transformers on H100s, as a Markdown table.

    python benchmarks/fits.py              # by arithmetic from the constants below
    python benchmarks/fits.py --measure    # training steps on this CPU beside the same arithmetic

Times are of one pass over the events in full batches, without reading, evaluation and saving.
"""

import argparse
import dataclasses
import subprocess
import sys

GPU_BYTES = 0.9 * 80e9  # what an 80 GB card leaves for tensors
PEAK_FLOPS = 0.4 * 989e12  # H100 SXM, bf16, dense; the share that matrix products reach is assumed
MEMORY_RATE = 0.8 * 3.35e12  # bytes a second, H100 SXM
LINK_RATE = {1: float("inf"), 8: 0.8 * 450e9, 64: 0.8 * 50e9}  # NVLink; one 400 Gb/s card for each GPU
STEP_MS, LAYER_MS = 7.2, 3.5  # launching kernels: 2 layers 14.1 ms, 6 layers 28.0 ms (recipes/README.md)
KEPT = 40  # numbers that a layer keeps for each event and unit of width; --measure: within 5 %


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained, on how many events at once a GPU; no negatives mean the full softmax."""

    events: float
    items: int
    width: int
    layers: int
    length: int
    batch: int
    negatives: int = 0

    @property
    def table(self) -> int:
        return self.items * self.width

    @property
    def body(self) -> int:
        return 12 * self.layers * self.width**2 + self.length * self.width


def flops_per_event(job: Job) -> float:
    """Forward and backward; attention is causal, and every event is a label."""
    scored = job.negatives + 1 if job.negatives else job.items
    return 6 * job.width * (12 * job.layers * job.width + job.layers * job.length + scored)


def gpu_bytes(job: Job, scheme: str, gpus: int, *, on_cpu: bool = False) -> float:
    """Weights, gradients, optimiser state, activations and the loss's workspace at the worst moment.

    fp32 weight, gradient and AdamW's two moments: 16 bytes. The table is used at both ends of the model, so
    that the backward makes a second gradient of it when the loss has given its workspace back: the larger of
    the two counts. DDP holds gradients once more in its buckets: 4. FSDP2 cuts the 16 over the GPUs and holds
    weights and gradients in bf16: 4, and 2 while they are reduced. The table split by rows
    (`recbert.sharding`) keeps weights and two numbers a row, and gradients of the rows that a batch touches.
    Activations are of bf16.
    """
    size = 4 if on_cpu else 2
    kept = KEPT * size * job.batch * job.layers * job.width
    if job.negatives:
        loss = job.batch * (job.negatives * 12 + job.width * 3 * size)
    elif on_cpu:
        loss = max(2**20, 64 * job.items * size)  # probabilities take the place of logits
    else:  # logits and probabilities of a chunk, the table in bf16, and a product of its shape
        loss = 2 * max(2**28, 128 * job.items * size) + 2 * size * job.table
    whole = job.table + job.body
    weights, second = {
        "one GPU": (16 * whole, 4 * job.table),
        "DDP": (20 * whole, 4 * job.table),
        "FSDP2": ((4 + 16 / gpus) * whole, 2 * whole),
        "split table": (4 * (job.table + 2 * job.items) / gpus + 20 * job.body, 24 * job.batch * job.width),
    }[scheme]
    return kept + weights + max(second, loss)


def step_seconds(job: Job, scheme: str, gpus: int) -> tuple[float, float]:
    """Seconds for the batch, and for what has a weight's shape: through memory and between GPUs."""
    # What is kept is written and read twice or so; the logits of a full softmax are passed six times.
    passed = 4 * KEPT * 2 * job.batch * job.layers * job.width
    passed += 0 if job.negatives else 6 * 2 * job.batch * job.items
    working = job.batch * flops_per_event(job) / PEAK_FLOPS + passed / MEMORY_RATE
    whole = job.table + job.body
    rows = 3 * 4 * (2 * job.batch + job.negatives) * job.width  # fetched, and their gradients brought back
    # AdamW reads 16 bytes and writes 12 a weight; two dense gradients of the table are made and added.
    moved, sent = {
        "one GPU": (28 * whole + 20 * job.table, 0),
        "DDP": (28 * whole + 28 * job.table, 2 * 4 * whole),
        "FSDP2": (28 * whole / gpus + 10 * job.table, 2 * 2 * whole),
        "split table": (28 * job.body + 5 * rows, rows + 2 * 4 * job.body),
    }[scheme]
    moving = moved / MEMORY_RATE + sent * (1 - 1 / gpus) / LINK_RATE[gpus]
    return max(working, (STEP_MS + LAYER_MS * job.layers) / 1e3), moving


def fits(job: Job, scheme: str, gpus: int) -> bool:
    """Tell whether a scheme fits the GPUs' memory."""
    return gpu_bytes(job, scheme, gpus) < GPU_BYTES


def seconds(job: Job, scheme: str, gpus: int) -> float:
    """Give the seconds of one pass over the events."""
    return job.events / (job.batch * gpus) * sum(step_seconds(job, scheme, gpus))


def choose(job: Job) -> str:
    """Give the simplest scheme that fits and spends less time on weights than on the batch.

    One GPU is taken while a pass stays under ten minutes.
    """
    for scheme, gpus in SCHEMES.items():
        working, moving = step_seconds(job, scheme, gpus)
        if fits(job, scheme, gpus) and moving < working and (gpus > 1 or seconds(job, scheme, 1) < 600):
            return scheme
    return "split table"


def told(number: float, units: list[tuple[float, str]]) -> str:
    """Give a number in the largest unit that it reaches, two digits."""
    size, name = next((unit for unit in units if number >= unit[0]), units[-1])
    digits = 0 if number / size >= 9.95 else 1
    return f"{number / size:,.{digits}f}{name}"


SCHEMES = {"one GPU": 1, "DDP": 8, "FSDP2": 8, "split table": 8}
CONFIG = {
    "one GPU": "`gpu.yaml`",
    "DDP": "`ddp.yaml`",
    "FSDP2": "`fsdp.yaml`",
    "split table": "`ddp.yaml`, `model.shard_items`",
}
COUNTS = [(1e9, " B"), (1e6, " M"), (1e3, " k")]
TIMES = [(3600.0, " h"), (60.0, " min"), (1.0, " s")]
JOBS = [
    Job(1e6, 10_000, 64, 2, 50, 4_096),
    Job(1e8, 100_000, 128, 2, 100, 16_384),
    Job(1e9, 1_000_000, 256, 4, 200, 32_768, 256),
    Job(1e9, 1_000_000, 2048, 24, 200, 4_096, 256),
    Job(1e9, 10_000_000, 256, 4, 200, 32_768, 256),
    Job(1e10, 10_000_000, 512, 8, 200, 32_768, 256),
]


def print_table() -> None:
    """Print one line for each job."""
    print("| events | items | width x layers, length | events a GPU and step | loss | weights "
          "| MFLOP an event | GB a GPU: one / DDP / FSDP2 on 8 / split on 8 | take "
          "| a pass on 1 / 8 / 64 GPUs |")  # fmt: skip
    print("|---:|---:|---|---:|---|---:|---:|---|---|---|")
    for job in JOBS:
        taken = choose(job)
        sizes = [gpu_bytes(job, name, gpus) / 1e9 for name, gpus in SCHEMES.items()]
        times = []
        for gpus in LINK_RATE:
            scheme = "DDP" if taken == "one GPU" and gpus > 1 else taken
            if gpus == 1 and taken in ("DDP", "FSDP2"):
                scheme = "one GPU"
            sensible = fits(job, scheme, gpus) and job.events >= 100 * job.batch * gpus
            times.append(told(seconds(job, scheme, gpus), TIMES) if sensible else "-")
        shown = " / ".join(f"{size:,.1f}" if size * 1e9 < GPU_BYTES else f"**{size:,.0f}**" for size in sizes)
        print(f"| {told(job.events, COUNTS)} | {told(job.items, COUNTS)} | {job.width} x {job.layers}, "
              f"{job.length} | {job.batch:,} | {f'sampled, {job.negatives}' if job.negatives else 'full'} | "
              f"{told(job.table + job.body, COUNTS)} | {flops_per_event(job) / 1e6:,.0f} | {shown} | "
              f"{taken}: {CONFIG[taken]} | {' / '.join(times)} |")  # fmt: skip


STEP = """
import resource, sys, tempfile, torch
from recbert import ItemTokenizer, NextItem, RecTrainer, RecTrainingArguments, build_model
items, width, layers, length, rows = map(int, sys.argv[1:])
torch.set_num_threads(1)
tokenizer = ItemTokenizer.from_items([str(item) for item in range(items)])
ids = torch.randint(70, 69 + items, (rows, length + 1)).tolist()
data = [{"input_ids": row, "is_target": [True] * len(row)} for row in ids]
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
model = build_model("gpt2", tokenizer, hidden_size=width, num_hidden_layers=layers, max_length=length)
arguments = RecTrainingArguments(tempfile.mkdtemp(), max_steps=3, per_device_train_batch_size=rows,
    use_cpu=True, report_to="none", save_strategy="no", load_best_model_at_end=False, disable_tqdm=True)
RecTrainer(model, arguments, objective=NextItem(tokenizer, length), data={"train": data}).train()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


def measure() -> None:
    """Train three steps of each size in a process of its own, in float32, and print its peak."""
    print("| items | width x layers, length | events a step | peak, MB | arithmetic, MB | ratio |")
    print("|---:|---|---:|---:|---:|---:|")
    tables, bodies = (200_000, 64, 1, 20), (1_000, 64, 4, 100)
    for sizes in ((*tables, 50), (*tables, 400), (*bodies, 100), (*bodies, 400)):
        items, width, layers, length, rows = sizes
        done = subprocess.run(
            [sys.executable, "-c", STEP, *map(str, sizes)], capture_output=True, text=True, check=True
        )
        found = int(done.stdout.split()[-1])
        job = Job(0, items, width, layers, length, rows * length)
        expected = gpu_bytes(job, "one GPU", 1, on_cpu=True)
        print(f"| {items:,} | {width} x {layers}, {length} | {job.batch:,} | {found / 1e6:,.0f} | "
              f"{expected / 1e6:,.0f} | {found / expected:.2f} |")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help="measure training steps on this CPU")
    measure() if parser.parse_args().measure else print_table()
