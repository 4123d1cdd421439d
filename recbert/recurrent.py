"""LSTM and GRU next-item models with the interface of a transformers causal language model.

Importing this module registers them with `AutoConfig` and `AutoModelForCausalLM`. They are the only model
classes of recbert's own: everything else is a stock transformers class.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutput

CELLS = ("gru", "lstm")


class RecurrentConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]  # transformers' class hook
    """Sizes of a recurrent next-item model.

    `cell` is "lstm" or "gru"; `hidden_size` the width of the item table and of what the head reads;
    `recurrent_size` the width of the recurrent state. `dropout` applies behind the item table, between the
    recurrent layers and behind the projection.
    """

    model_type = "recbert-recurrent"

    cell: str = "gru"
    vocab_size: int = 128
    hidden_size: int = 64
    recurrent_size: int = 64
    num_hidden_layers: int = 1
    dropout: float = 0.1
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    tie_word_embeddings: bool = True


class RecurrentForCausalLM(PreTrainedModel):  # type: ignore[no-untyped-call]  # as above
    """Item table, LSTM or GRU, projection back to the table's width, item head tied to the table."""

    config_class = RecurrentConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "item_table.weight"}

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        if config.cell not in CELLS:
            raise ValueError(f"cell={config.cell!r}: must be one of {', '.join(CELLS)}.")
        layers = config.num_hidden_layers
        self.item_table = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.recurrent = (nn.LSTM if config.cell == "lstm" else nn.GRU)(
            config.hidden_size,
            config.recurrent_size,
            num_layers=layers,
            batch_first=True,
            dropout=config.dropout if layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(config.recurrent_size, config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]  # transformers has no types there

    def get_input_embeddings(self) -> nn.Module:
        """The item table (V, D)."""
        return self.item_table

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the item table, as `resize_token_embeddings` does."""
        self.item_table = cast(nn.Embedding, value)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The 0.02 of transformers is made for blocks that normalise their input; a recurrent cell would
        # hardly hear it, and learn nothing for hundreds of steps.
        if isinstance(module, nn.RNNBase):
            bound = 1 / math.sqrt(module.hidden_size)
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=1 / math.sqrt(module.embedding_dim))
            # A slice does not carry the mark of a loaded parameter, which the functions of `init` respect.
            if module.padding_idx is not None and not getattr(module.weight, "_is_hf_initialized", False):
                init.zeros_(module.weight[module.padding_idx])

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Logits (B, L, V) of the next item at every position of `input_ids` (B, L).

        `attention_mask` and `position_ids` change nothing and are taken for the sake of the common interface:
        batches are padded on the right and a recurrent network reads to the right only. With `labels` (B, L),
        -100 where there is none and not shifted, the output carries the mean cross-entropy of the next item.
        """
        del attention_mask, position_ids
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds.")
        embedded = self.item_table(input_ids) if inputs_embeds is None else inputs_embeds  # (B, L, D)
        states, _ = self.recurrent(self.dropout(embedded))  # (B, L, recurrent_size)
        hidden = self.dropout(self.projection(states))  # (B, L, D)
        logits = self.lm_head(hidden)  # (B, L, V)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits, labels, vocab_size=self.config.vocab_size, num_items_in_batch=num_items_in_batch
            )
        output = CausalLMOutput(loss=loss, logits=logits)
        return output if return_dict is not False else output.to_tuple()


AutoConfig.register(RecurrentConfig.model_type, RecurrentConfig, exist_ok=True)
AutoModelForCausalLM.register(RecurrentConfig, RecurrentForCausalLM, exist_ok=True)
