"""Rows from all processes, each exactly once and in the order of a single process."""

import torch
from torch import Tensor, distributed


def process_place() -> tuple[int, int]:
    """Give this process's number and the number of processes: (0, 1) when nothing is distributed."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gather_rows(values: Tensor, numbers: Tensor, total: int, most: int) -> Tensor:
    """Bring the rows that each process holds together in their order.

    Args:
        values: (M, ...) rows of this process; M may differ between processes and be 0.
        numbers: (M,) int64, the place of each row among all; every place belongs to one process.
        total: rows of all processes together.
        most: rows that any one process holds at most, the same number everywhere.

    Returns:
        (total, ...) on the CPU, the same on every process.
    """
    _, processes = process_place()
    if processes > 1:
        numbers = _gather_padded(numbers, most, fill=-1)
        values = _gather_padded(values, most, fill=0)
        values, numbers = values[numbers >= 0], numbers[numbers >= 0]
    gathered = torch.empty((total, *values.shape[1:]), dtype=values.dtype)
    gathered[numbers] = values
    return gathered


def _gather_padded(values: Tensor, size: int, fill: int) -> Tensor:
    """Concatenate what all processes hold, each filled up to the same size."""
    device = _exchange_device()
    padded = torch.full((size, *values.shape[1:]), fill, dtype=values.dtype, device=device)
    padded[: len(values)] = values.to(device)
    parts = [torch.empty_like(padded) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, padded)
    return torch.cat(parts).cpu()


def _exchange_device() -> torch.device:
    """Give the device whose tensors the backend can exchange; NCCL knows GPUs only."""
    backend = distributed.get_backend()
    if "nccl" in backend and "gloo" not in backend:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
