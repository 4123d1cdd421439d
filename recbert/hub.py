"""Checkpoints to and from the Hugging Face Hub: only the files that belong to one, nothing else.

The one room that imports huggingface_hub.
"""

from __future__ import annotations

import fnmatch
import logging
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from recbert.checkpoint import INFO_FILE, POPULARITY_FILE, RULES_FILE
from recbert.checkpoint.saving import GENERATION_FILE, RECIPE_FILE
from recbert.tokenizer import INDEX_FILE

logger = logging.getLogger(__name__)

ALLOWED_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    INDEX_FILE,
    GENERATION_FILE,
    POPULARITY_FILE,
    RULES_FILE,
    INFO_FILE,
    RECIPE_FILE,
    "metrics.json",
    "README.md",
)
"""What may travel to the Hub and back: safetensors, JSON, YAML and the model card; no pickle, no code."""


def push_to_hub(folder: str | Path, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a checkpoint or adapter folder to the Hub and return the address of its page.

    Only the files in `ALLOWED_FILES` at the top of the folder are sent. Whatever else lies there
    (`training_args.bin`, optimizer states, event tables, subfolders) stays, and is named in the log.

    Args:
        folder: what `RecTrainer.save_model`, `save_adapter` or `recbert pretrain` wrote.
        repo_id: `owner/name`, or `name` for a repository of your own; it is made if it does not exist.
        private: whether a repository made here is private; one that exists keeps its visibility.
        token: access token; None takes `HF_TOKEN` or the token saved by `hf auth login`.

    Returns:
        The address of the repository's page.

    Raises:
        FileNotFoundError: `folder` does not exist or is not a checkpoint.
        ValueError: `repo_id` is not a valid name, or the Hub refuses the upload.
    """
    folder = Path(folder)
    files = _publishable_files(folder)
    left = sorted(path.name for path in folder.iterdir() if path.name not in files)
    if left:
        logger.info("not published from %s: %s", folder, ", ".join(left))
    api = HfApi(token=token, library_name="recbert")
    try:
        repository = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository.repo_id,
            folder_path=folder,
            allow_patterns=files,
            commit_message="Upload a recbert checkpoint",
        )
    except OfflineModeIsEnabled as error:
        raise ValueError(
            f"repo_id {repo_id!r} cannot be pushed: unset HF_HUB_OFFLINE and try again"
        ) from error
    except HFValidationError as error:
        raise ValueError(_name_message(repo_id, error)) from error
    except HfHubHTTPError as error:
        raise ValueError(
            f"the Hub refused to store {repo_id!r} ({_first_line(error)}): check the name, and that the "
            "token may write there (`hf auth login`, or HF_TOKEN)"
        ) from error
    return str(repository)


def fetch(repo_id: str, revision: str | None = None, *, token: str | None = None) -> Path:
    """Download a checkpoint from the Hub, or find it in the cache, and return its local folder.

    Args:
        repo_id: `owner/name`.
        revision: branch, tag or commit; None is the newest of the main branch.
        token: access token for a private repository; None takes `HF_TOKEN` or the saved one.

    Returns:
        The folder with the files of `ALLOWED_FILES` that the repository has.

    Raises:
        FileNotFoundError: the Hub has no such repository or revision, or neither it nor the cache has it.
        ValueError: `repo_id` is not a valid name.
    """
    try:
        return Path(
            snapshot_download(repo_id, revision=revision, token=token, allow_patterns=list(ALLOWED_FILES))
        )
    except HFValidationError as error:
        raise ValueError(_name_message(repo_id, error)) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{repo_id!r} has no revision {revision!r}: give a branch, tag or commit of it"
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"the Hub has no repository {repo_id!r} that you may read: check the name and, if it is "
            "private, the token"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled) as error:
        raise FileNotFoundError(
            f"{repo_id!r} is not in the cache and the Hub did not deliver it ({_first_line(error)}): "
            "check the name and the network, or download it on another machine and give the folder"
        ) from error


def _name_message(repo_id: str, error: Exception) -> str:
    return f"repo_id is {repo_id!r}: it must be `owner/name` or `name` ({_first_line(error)})"


def _publishable_files(folder: Path) -> list[str]:
    """Return the names of the files that may be published; refuse a folder that is not a checkpoint."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"folder {str(folder)!r} does not exist: give the folder of a saved checkpoint"
        )
    names = [path.name for path in folder.iterdir() if path.is_file()]
    files = sorted(
        name for name in names if any(fnmatch.fnmatchcase(name, allowed) for allowed in ALLOWED_FILES)
    )
    has_config = "config.json" in files or "adapter_config.json" in files
    missing = [] if has_config else ["config.json or adapter_config.json"]
    weights = ("model.", "model-", "adapter_model.")
    missing += [] if any(name.startswith(weights) for name in files) else ["model.safetensors"]
    missing += [] if INDEX_FILE in files or "tokenizer.json" in files else ["tokenizer.json"]
    missing += [] if INFO_FILE in files else [INFO_FILE]
    if missing:
        raise FileNotFoundError(
            f"folder {str(folder)!r} is not a recbert checkpoint: it lacks {', '.join(missing)}"
        )
    return files


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message without what differs from call to call."""
    return str(error).strip().split("\n")[0].split(" (Request ID")[0]
