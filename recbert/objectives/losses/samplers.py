"""Where negatives come from."""

import math
from typing import Protocol

import torch
from torch import Tensor

from recbert.tokenizer import FIRST_ITEM_ID


class Sampler(Protocol):
    """Draws items as negatives, with replacement, from a distribution q over the catalogue.

    Attributes:
        num_items: size of the catalogue.
    """

    num_items: int

    def draw(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw items from the global random generator of a device, which a Trainer saves and restores.

        Args:
            count: number of draws.
            device: where the tensors are to be.

        Returns:
            token_ids: (count,) int64; never a special token.
            log_q: (count,) natural logarithm of the probability with which one draw gives that item.
        """
        ...


class UniformSampler:
    """Every item is as likely as every other.

    Args:
        num_items: size of the catalogue.
    """

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def draw(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw items; see `Sampler.draw`."""
        end = FIRST_ITEM_ID + self.num_items
        token_ids = torch.randint(FIRST_ITEM_ID, end, (count,), device=device)
        return token_ids, torch.full((count,), -math.log(self.num_items), device=device)
