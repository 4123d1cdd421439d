"""Training: arguments, the trainer, and the checkpoint that an interrupted run goes on from."""

from recbert.training.arguments import RecTrainingArguments
from recbert.training.machines import check_shared_folder
from recbert.training.mirror import MirroredTables
from recbert.training.provenance import Lineage, Provenance
from recbert.training.resuming import is_complete, last_checkpoint, list_checkpoints
from recbert.training.trainer import RecTrainer

__all__ = [
    "Lineage",
    "MirroredTables",
    "Provenance",
    "RecTrainer",
    "RecTrainingArguments",
    "check_shared_folder",
    "is_complete",
    "last_checkpoint",
    "list_checkpoints",
]
