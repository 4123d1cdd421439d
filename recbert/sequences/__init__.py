"""Split events and a tokenizer into a `datasets.DatasetDict` of histories; that into a folder and back."""

from recbert.sequences.build import build_sequences, stream_sequences
from recbert.sequences.storage import MANIFEST_FILE, fingerprint_data, read_prepared, write_prepared
from recbert.sequences.streaming import stream_prepared

__all__ = [
    "MANIFEST_FILE",
    "build_sequences",
    "fingerprint_data",
    "read_prepared",
    "stream_prepared",
    "stream_sequences",
    "write_prepared",
]
