"""`recbert VERB ...`: find the verb, run it, and turn errors into one message and an exit code."""

import errno
import importlib
import logging
import os
import sys
from collections.abc import Sequence

VERBS = {
    "prepare": "events into training sequences",
    "pretrain": "train a new model",
    "finetune": "adapt a checkpoint with LoRA",
    "tune": "search for the best recipe on the validation part",
    "blend": "blend a model with sequential rules, chosen on the validation part",
    "evaluate": "rank the full catalogue and compare with count baselines",
    "compare": "evaluated runs against each other, several seeds of a recipe averaged",
    "recommend": "next items for one history or for files of histories",
    "encode": "history and item vectors to Parquet",
    "add-items": "new items into the catalogue of a checkpoint",
    "compact": "drop rare or long unseen items from a checkpoint",
    "deny": "items that a checkpoint never recommends",
    "push": "publish a checkpoint on the Hub",
    "doctor": "versions, devices and a five-second self-test",
}

TRAINING = ("pretrain", "finetune")  # what resumes from a checkpoint


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: the command line after `recbert`; None takes the process's.

    Returns:
        0, 1 when another process failed, 2 for bad input, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if arguments else 2
    if arguments[0] not in VERBS:
        sys.stderr.write(f"recbert: unknown verb {arguments[0]!r}\n{_usage()}")
        return 2
    return run(arguments[0], arguments[1:])


def run(verb: str, arguments: Sequence[str]) -> int:
    """Run one verb; what `main` and the launch scripts share.

    Args:
        verb: one of `VERBS`.
        arguments: its command line.

    Returns:
        The exit code.
    """
    logging.basicConfig(level=os.environ.get("RECBERT_LOG_LEVEL", "INFO"), format="%(name)s: %(message)s")
    for name in ("httpx", "filelock", "fsspec", "matplotlib", "absl"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        code: int = importlib.import_module(f"recbert.commands.{verb.replace('-', '_')}").run(list(arguments))
    except KeyboardInterrupt:
        sys.stderr.write(f"recbert {verb}: interrupted; what was written before stands{_way_on(verb)}\n")
        return 130
    except Exception as error:
        if verb in TRAINING and _is_lost_process(error):
            lost = "another process of this run has ended or cannot be reached; its own output says why"
            _refuse(verb, f"{lost} ({error}){_way_on(verb)}")
            return 1
        if isinstance(error, (ValueError, OSError)):
            return _refuse(verb, str(error))
        if not _is_failed_writing(error):
            raise
        return _refuse(verb, f"the output cannot be written: free some space ({error})")
    except SystemExit as done:  # argparse: 0 after --help, 2 for a wrong option
        return done.code if isinstance(done.code, int) else 2
    return code


def _refuse(verb: str, message: str) -> int:
    """Write an error as one line and give the exit code of bad input."""
    sys.stderr.write(f"recbert {verb}: error: {' '.join(message.split())}\n")
    return 2


def _is_failed_writing(error: Exception) -> bool:
    """Tell a full disk from a defect: safetensors, tokenizers and torch.save raise no OSError then."""
    signs = [f"(os error {number})" for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)]
    return any(sign in str(error) for sign in (*signs, "inline_container.cc"))


def _is_lost_process(error: Exception) -> bool:
    """Tell another process's end, as torch.distributed, gloo and a DataLoader report it, from a defect."""
    signs = ("third_party/gloo", "DataLoader worker (pid")
    named = isinstance(error, (ConnectionError, EOFError)) or type(error).__name__.startswith("Dist")
    return named or any(sign in str(error) for sign in signs)


def _way_on(verb: str) -> str:
    """Say how an interrupted verb goes on."""
    if verb in TRAINING:
        return "; go on with --training.resume_from_checkpoint true"
    return "; the same command goes on" if verb in ("recommend", "encode", "tune") else ""


def _usage() -> str:
    """Give the list of verbs."""
    lines = [f"  {verb:10} {phrase}\n" for verb, phrase in VERBS.items()]
    return "usage: recbert VERB [options]; `recbert VERB --help` tells them\n" + "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
