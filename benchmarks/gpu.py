"""Training on one GPU: events a second, memory and the share of the card's peak, for recbert and peers.

    python -m benchmarks.gpu --output FOLDER [--environments FOLDER]

GPT-2 of 4 layers x 256 on a million items, histories of 20 to 200 events, bf16, the loss in all its ways.
Each run is a process of its own and trains two short epochs, of which the second counts. Only real events are
counted, not padding. RePlay and RecTools run too where they are installed, in this environment or in one of
`--environments`. Under eight minutes; `--trial` exercises the code on a CPU at toy sizes.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.histories import Histories, draw_histories
from benchmarks.tree import build_environment, last_line, run

MINUTES = 8.0
# Peak of dense bf16 products, by a part of the card's name; other cards are measured.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12}


class Run(NamedTuple):
    """A contender, the job, what is switched on, and whether torchrun starts it."""

    library: str
    job: str
    variant: str
    torchrun: bool = False


RUNS = (
    Run("recbert", "next-item", "bf16"),
    Run("recbert", "next-item", "bf16+packed"),
    Run("recbert", "next-item", "bf16+compiled"),
    Run("recbert", "sampled-softmax", "bf16"),
    Run("recbert", "sampled-softmax", "bf16+packed"),
    Run("recbert", "next-item", "bf16", torchrun=True),
    Run("replay", "next-item", "bf16"),
    Run("rectools", "next-item", "bf16"),
)


class Setting(NamedTuple):
    """Sizes of a comparison; a peer with dense logits gets smaller batches, or none would fit."""

    items: int
    width: int
    layers: int
    heads: int
    length: int
    batch: int
    peer_batch: int
    steps: int
    device: str


FULL = Setting(1_000_000, 256, 4, 4, 200, 128, 8, 20, "cuda")
TRIAL = Setting(500, 16, 2, 2, 20, 8, 4, 3, "cpu")


def main() -> None:
    options = read_options()
    begin = time.perf_counter()
    options.output.mkdir(parents=True, exist_ok=True)
    setting = TRIAL if options.trial else FULL
    peak = measure_peak(setting.device)
    print(describe_machine(setting, peak), flush=True)
    for contender in RUNS:
        if not find_python(options, contender.library):
            continue
        left = 60 * MINUTES - (time.perf_counter() - begin)
        outcome = measure(options, setting, contender, left) if left > 0 else {"failed": "out of time"}
        with (options.output / "gpu.jsonl").open("a") as file:
            file.write(json.dumps({**contender._asdict(), **outcome}) + "\n")
        print(build_row(contender, outcome, peak), flush=True)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for logs and gpu.jsonl")
    parser.add_argument(
        "--environments", type=Path, default=Path(), help="folder that environments.sh filled"
    )
    parser.add_argument("--trial", action="store_true", help="toy sizes on a CPU")
    return parser.parse_args()


def find_python(options: argparse.Namespace, library: str) -> str:
    """The interpreter that has a library; empty if there is none."""
    path: Path = options.environments / library / "bin" / "python"
    if library != "recbert" and path.exists():
        return str(path)
    return sys.executable if importlib.util.find_spec(library) else ""


def measure(options: argparse.Namespace, setting: Setting, contender: Run, limit: float) -> dict[str, Any]:
    """Run one contender; its figures with the events and FLOPs of an epoch."""
    batch = setting.batch if contender.library == "recbert" else setting.peer_batch
    name = "-".join(map(str, contender))
    folder, log = options.output / name, options.output / f"{name}.log"
    folder.mkdir(exist_ok=True)
    report, path = folder / "report.json", folder / "histories.npz"
    report.unlink(missing_ok=True)
    histories = draw_histories(
        setting.steps * batch, setting.items, (setting.length // 10 + 3, setting.length + 3), seed=0
    )
    histories.save(path)
    command = [find_python(options, contender.library), "-P", "-m"]
    if contender.torchrun:
        command += ["torch.distributed.run", "--standalone", "--nproc_per_node", "1", "-m"]
    command += [f"benchmarks.peers.{contender.library}", "--job", contender.job, "--epochs", "2"]
    command += ["--variant", contender.variant, "--histories", str(path), "--folder", str(folder)]
    command += ["--report", str(report), "--threads", "2"]
    environment = {**build_environment(2), **build_sizes(setting, batch)}
    cost = run(command, environment, log, limit)
    if cost.returncode or not report.exists():
        return {"failed": f"exit code {cost.returncode}, {last_line(log)}"}
    work = count_work(environment, contender.job, histories)
    return {"batch": batch, "whole_wall": cost.wall, **work, **json.loads(report.read_text())}


def build_sizes(setting: Setting, batch: int) -> dict[str, str]:
    sizes = (setting.width, setting.layers, setting.heads, setting.length, batch)
    return {"BENCHMARK_SIZES": " ".join(map(str, sizes)), "BENCHMARK_DEVICE": setting.device}


def count_work(environment: dict[str, str], job: str, histories: Histories) -> dict[str, float]:
    """Events and FLOPs of an epoch; the sizes are read when `benchmarks.floor` is imported, so it is late."""
    os.environ.update({name: environment[name] for name in ("BENCHMARK_SIZES", "BENCHMARK_DEVICE")})
    from benchmarks import floor

    work = floor.count_work(job, histories.without_last(2))
    return {"tokens": work.tokens, "flops": work.body + work.items}


def measure_peak(device: str) -> float:
    """FLOPs a second of the card: its data sheet's, or else those of a large product."""
    import torch

    if device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("there is no GPU here: --trial exercises the code on a CPU")
        name = torch.cuda.get_device_name()
        for part, peak in PEAKS.items():
            if part in name:
                return peak
    size = 8192 if device == "cuda" else 512
    left = torch.randn(size, size, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        (left @ left).sum().item()  # waits for the product
        taken.append(time.perf_counter() - begin)
    return 2.0 * size**3 / min(taken)


def describe_machine(setting: Setting, peak: float) -> str:
    """Say what is there, and head the table."""
    import torch

    device = torch.cuda.get_device_name() if setting.device == "cuda" else "CPU"
    packages = ("cut_cross_entropy", "liger_kernel", "flash_attn")
    found = [name for name in packages if importlib.util.find_spec(name)]
    return (
        f"{device}, torch {torch.__version__}, peak {peak / 1e12:.4g} TFLOP/s, installed of "
        f"{', '.join(packages)}: {', '.join(found) or 'none'}; {setting.items:,} items, "
        f"{setting.layers} layers x {setting.width}, length {setting.length}\n\n"
        "| contender | job | with | batch | events/s | GPU peak MiB | share of the card's peak | loss |\n"
        "|---|---|---|---:|---:|---:|---:|---:|"
    )


def build_row(contender: Run, outcome: dict[str, Any], peak: float) -> str:
    label = contender.variant + (", DDP of one process" if contender.torchrun else "")
    head = f"| {contender.library} | {contender.job} | {label} |"
    if "failed" in outcome:
        return f"{head} failed: {outcome['failed']} | | | | |"
    speed, share = outcome["tokens"] / outcome["wall"], outcome["flops"] / outcome["wall"] / peak
    memory = f"{outcome['gpu_peak']:.0f}" if "gpu_peak" in outcome else ""
    return f"{head} {outcome['batch']} | {speed:,.0f} | {memory} | {share:.1%} | {outcome['loss']:.4f} |"


if __name__ == "__main__":
    main()
