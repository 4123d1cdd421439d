"""Stock architectures side by side: the best validation NDCG@10 of each with the same recipe.

    python -m benchmarks.accuracy.families --config RECIPE --out FOLDER [--only NAME ...] [--key value ...]

The data of the recipe must be prepared. Each architecture is trained once by `recbert pretrain`; the test
part stays closed. What is finished in FOLDER is read, not trained again.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from safetensors import safe_open

_DRAWN = "model.mimetic=false"  # families without such a start
ARCHITECTURES = {
    "openai-gpt 2 x 64, norms behind": "model.family=openai-gpt",
    "openai-gpt, attention drawn": "model.family=openai-gpt model.mimetic=false",
    "openai-gpt, items drawn": "model.family=openai-gpt model.item_vectors=null",
    "openai-gpt 1 x 64": "model.family=openai-gpt model.num_hidden_layers=1",
    "openai-gpt 4 x 64": "model.family=openai-gpt model.num_hidden_layers=4",
    "openai-gpt 2 x 128": "model.family=openai-gpt model.hidden_size=128",
    "gpt2, norms in front": "model.family=gpt2",
    "gpt2 4 x 64": "model.family=gpt2 model.num_hidden_layers=4",
    "llama, RMSNorm, SwiGLU": f"model.family=llama {_DRAWN}",
    "qwen3, norms on queries and keys": f"model.family=qwen3 {_DRAWN}",
    "qwen3_5_text, gated attention": f"model.family=qwen3_5_text {_DRAWN}",
    "qwen3_5_text 4 x 64": f"model.family=qwen3_5_text model.num_hidden_layers=4 {_DRAWN}",
    "mamba": f"model.family=mamba {_DRAWN}",
    "gru": f"model.family=gru model.num_hidden_layers=1 {_DRAWN}",
    "lstm": f"model.family=lstm model.num_hidden_layers=1 {_DRAWN}",
}
"""What each changes in the recipe."""


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", required=True, help="the recipe")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=ARCHITECTURES, help="those to train")
    options, common = parser.parse_known_args()
    print("| architecture | parameters | validation NDCG@10 | epoch | minutes |\n|---|---:|---:|---:|---:|")
    for name in options.only or ARCHITECTURES:
        run = options.out / name.replace(",", "").replace(" ", "-")
        if not (run / "model").is_dir():
            _train(options.config, run, [*_as_options(ARCHITECTURES[name]), *common])
        print(_row(name, run), flush=True)


def _as_options(changes: str) -> list[str]:
    """Turn `key=value` into `--key value`."""
    return [part for change in changes.split() for part in ("--" + change).split("=")]


def _train(recipe: str, run: Path, options: list[str]) -> None:
    """Train one architecture; what is printed goes to a file beside the run."""
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "recbert.commands.main", "pretrain", "--config", recipe]
    with open(f"{run}.log", "w") as log:
        subprocess.run(
            [*command, "--training.output_dir", str(run), *options], stdout=log, stderr=log, check=True
        )


def _row(name: str, run: Path) -> str:
    """Read the row of a finished run."""
    last = max(run.glob("checkpoint-*"), key=lambda folder: int(folder.name.partition("-")[2]))
    state = json.loads((last / "trainer_state.json").read_text())
    best = max(state["log_history"], key=lambda entry: entry.get("eval_ndcg@10", -1.0))
    seconds = float(re.findall(r"'train_runtime': '([0-9.]+)'", Path(f"{run}.log").read_text())[-1])
    with safe_open(run / "model" / "model.safetensors", framework="numpy") as stored:
        size = sum(stored.get_tensor(key).size for key in stored.keys())  # noqa: SIM118 - not a dictionary
    return f"| {name} | {size:,} | {best['eval_ndcg@10']:.4f} | {best['epoch']:.0f} | {seconds / 60:.1f} |"


if __name__ == "__main__":
    main()
