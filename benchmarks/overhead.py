"""What RecTrainer's steps cost beside a bare PyTorch loop over the same batches: CPU time, one thread.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 \\
        python benchmarks/overhead.py PREPARED --work full sampled masked

PREPARED is what `recbert prepare --config recipes/amazon-beauty/gpt2.yaml` wrote. Both sides take turns on
one model, read the same batches each from a loader of its own, and take loss, clipping and AdamW alike.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from recbert import MaskedItem, NextItem, RecTrainer, RecTrainingArguments, build_model
from recbert.models import hidden_only, item_table
from recbert.objectives import SampledSoftmax, UniformSampler
from recbert.sequences import read_prepared

LENGTH = 50


class Clock(TrainerCallback):
    """CPU seconds between the first step of a run and the end of its last."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.begin = time.process_time()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.seconds = time.process_time() - self.begin


def build_trainer(prepared: Path, work: str, steps: int, clock: Clock) -> RecTrainer:
    """Build the trainer of `recipes/amazon-beauty`'s size for one kind of work."""
    data, tokenizer, _ = read_prepared(prepared)
    sampled = SampledSoftmax(256, sampler=UniformSampler(tokenizer.num_items)) if work == "sampled" else None
    kind, family = (MaskedItem, "bert") if work == "masked" else (NextItem, "gpt2")
    set_seed(0)
    model = build_model(
        family,
        tokenizer,
        objective="masked-item" if work == "masked" else "next-item",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        dropout=0.2,
        max_length=LENGTH,
    )
    arguments = RecTrainingArguments(
        tempfile.mkdtemp(),
        max_steps=steps,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        eval_strategy="no",
        load_best_model_at_end=False,
        disable_tqdm=True,
    )
    objective = kind(tokenizer, LENGTH, loss=sampled)
    return RecTrainer(model, arguments, objective=objective, data={"train": data["train"]}, callbacks=[clock])


def bare_steps(trainer: RecTrainer, optimizer: torch.optim.Optimizer, steps: int) -> Iterator[torch.Tensor]:
    """Train steps in the shortest loop that does the same, and give their losses."""
    model, objective = trainer.model, trainer.objective
    assert model is not None
    weight, bias = item_table(model)
    loader = trainer.get_train_dataloader()
    model.train()
    with hidden_only(model):
        for _, batch in zip(range(steps), loader, strict=False):
            labels = batch.pop("labels")
            hidden = model(**batch, use_cache=False).logits if trainer._caches else model(**batch).logits
            loss = objective.loss(hidden, weight, bias, labels) / (labels != -100).sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            yield loss.detach()


def compare(prepared: Path, work: str, steps: int, rounds: int) -> None:
    """Print milliseconds of a step on both sides and the median of the rounds' ratios."""
    clock = Clock()
    trainer = build_trainer(prepared, work, steps, clock)
    chosen, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    optimizer = chosen(trainer.model.parameters(), **options)
    ours, theirs = [], []
    for turn in range(rounds + 1):
        trainer.train()
        begin = time.process_time()
        sum(bare_steps(trainer, optimizer, steps))
        if turn:  # the first warms both up
            theirs.append(time.process_time() - begin)
            ours.append(clock.seconds)
    ratio = statistics.median(our / their for our, their in zip(ours, theirs, strict=True))
    milliseconds = [statistics.median(seconds) / steps * 1e3 for seconds in (ours, theirs)]
    print(f"| {work} | {milliseconds[0]:.1f} | {milliseconds[1]:.1f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prepared", type=Path, help="folder of prepared data")
    parser.add_argument("--work", nargs="+", default=["full", "sampled", "masked"])
    parser.add_argument("--steps", type=int, default=20, help="steps a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of both sides")
    given = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    print("| work | trainer, CPU ms a step | bare loop, CPU ms a step | ratio |\n|---|---:|---:|---:|")
    for work in given.work:
        compare(given.prepared, work, given.steps, given.rounds)
