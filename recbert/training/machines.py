"""What several machines must share."""

import uuid
from pathlib import Path

from torch import distributed


def check_shared_folder(folder: Path) -> None:
    """Check that the processes of all machines see one folder; nothing to check for a single process.

    Only the first process writes checkpoints, all read them: when a run is resumed and when the best epoch is
    loaded at its end. A machine with a folder of its own would silently go on with other weights.

    Args:
        folder: the run's folder; made where it is missing.

    Raises:
        ValueError: a process does not see what the first one writes.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    first = distributed.get_rank() == 0
    name = [f".shared-{uuid.uuid4().hex}"]
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name[0]).touch()
    distributed.broadcast_object_list(name, src=0)
    seen = [False] * distributed.get_world_size()
    distributed.all_gather_object(seen, (folder / name[0]).is_file())
    if first:
        (folder / name[0]).unlink()
    if not all(seen):
        raise ValueError(
            f"{folder}: process {seen.index(False)} does not see what process 0 writes there; "
            "put training.output_dir on a file system that all machines share"
        )
