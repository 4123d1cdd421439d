"""A checkpoint folder: `recbert.json`, the model card, atomic writing and hashes."""

from recbert.checkpoint.bases import base_hash, hash_base
from recbert.checkpoint.folder import hash_file, write_file, write_folder, write_text
from recbert.checkpoint.info import (
    INFO_FILE,
    POPULARITY_FILE,
    RULES_FILE,
    Anchoring,
    Blend,
    CheckpointInfo,
    InputFormat,
    ObjectiveName,
    TimeEncoding,
    find_file,
    read_info,
    write_info,
)

__all__ = [
    "INFO_FILE",
    "POPULARITY_FILE",
    "RULES_FILE",
    "Anchoring",
    "Blend",
    "CheckpointInfo",
    "InputFormat",
    "ObjectiveName",
    "TimeEncoding",
    "base_hash",
    "find_file",
    "hash_base",
    "hash_file",
    "read_info",
    "write_file",
    "write_folder",
    "write_info",
    "write_text",
]
