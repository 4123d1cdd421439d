"""The table of model families: what each one calls its sizes, its dropout and its LoRA targets.

A family is a transformers `model_type`, or "lstm" / "gru" (recbert.recurrent). Families in FAMILIES are
tested one by one. Any other family of the masked-LM and causal-LM Auto mappings is tried by the uniform names
of OTHER and probed after construction.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from recbert.recurrent import CELLS

Objective = Literal["masked-item", "next-item"]
OBJECTIVES: tuple[Objective, ...] = ("masked-item", "next-item")


@dataclass(frozen=True)
class Family:
    """How one family spells the uniform sizes; every name in a tuple receives the same value.

    `feed_forward` is empty where it is fixed at four times the hidden size.
    `unused_positions` counts the rows of the position table before the first one used: "pad" where positions
    start behind the pad id (pad id + 1 rows).
    `position_wise` names the modules of the last block, `{last}`, and behind it whose input may be cut to one
    position a row: what they compute at a position does not depend on the others, and what is added to their
    output repeats it over all positions.
    `attention_values` names the value and output projections of block `{layer}`; queries and keys may stand
    in front of the values in one matrix.
    `head_transform` names the linear layer that an activation and a norm follow, in front of the item table.
    `feed_forward_is_factor` marks families that ask for the feed-forward width as a multiple of the hidden
    size.
    `token_types` says where `token_type_ids` are looked up: in a table whose length `type_vocab_size` sets,
    or among the items; None where a family does not take them.
    `rotary_axes` counts the sets of positions that turn queries and keys: 0 without rotary positions.
    """

    hidden: tuple[str, ...] = ("hidden_size",)
    layers: str = "num_hidden_layers"
    heads: tuple[str, ...] = ("num_attention_heads",)
    head_size: tuple[str, ...] = ()
    feed_forward: str = "intermediate_size"
    feed_forward_is_factor: bool = False
    positions: tuple[str, ...] = ("max_position_embeddings",)
    unused_positions: int | Literal["pad"] = 0
    dropout: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    settings: Mapping[str, object] = field(default_factory=dict)
    lora_targets: tuple[str, ...] = ()
    position_wise: tuple[str, ...] = ()
    token_types: Literal["own table", "items"] | None = None
    rotary_axes: Literal[0, 1, 3] = 0
    attention_values: tuple[str, ...] = ()
    head_transform: str | None = None


_BERT_LINEARS = ("query", "key", "value", "dense")
_LLAMA_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

_GPT_VALUES = ("transformer.h.{layer}.attn.c_attn", "transformer.h.{layer}.attn.c_proj")

_LLAMA_PLACES = ("model.layers.{last}.mlp", "model.norm")

_BERT = Family(
    lora_targets=_BERT_LINEARS,
    position_wise=("bert.encoder.layer.{last}.intermediate", "cls"),
    token_types="own table",
    attention_values=(
        "bert.encoder.layer.{layer}.attention.self.value",
        "bert.encoder.layer.{layer}.attention.output.dense",
    ),
    head_transform="cls.predictions.transform.dense",
)
_ROBERTA = Family(
    unused_positions="pad",
    lora_targets=_BERT_LINEARS,
    position_wise=("roberta.encoder.layer.{last}.intermediate", "lm_head"),
    token_types="own table",
)
_LLAMA = Family(
    heads=("num_attention_heads", "num_key_value_heads"),
    head_size=("head_dim",),
    dropout=("attention_dropout",),
    lora_targets=_LLAMA_LINEARS,
    position_wise=_LLAMA_PLACES,
    rotary_axes=1,
)
_WINDOWLESS_LLAMA = Family(
    heads=_LLAMA.heads,
    head_size=_LLAMA.head_size,
    dropout=_LLAMA.dropout,
    settings={"sliding_window": None},
    lora_targets=_LLAMA_LINEARS,
    position_wise=_LLAMA_PLACES,
    rotary_axes=1,
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "distilbert": Family(
        hidden=("dim",),
        layers="n_layers",
        heads=("n_heads",),
        feed_forward="hidden_dim",
        dropout=("dropout", "attention_dropout"),
        lora_targets=("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    ),
    "modernbert": Family(
        dropout=("embedding_dropout", "attention_dropout", "mlp_dropout"),
        lora_targets=("Wqkv", "Wo", "Wi"),
        rotary_axes=1,
    ),
    "electra": Family(
        hidden=("hidden_size", "embedding_size"), lora_targets=_BERT_LINEARS, token_types="own table"
    ),
    "albert": Family(
        hidden=("hidden_size", "embedding_size"),
        settings={"hidden_act": "gelu"},  # as for gpt2
        lora_targets=("query", "key", "value", "dense", "ffn", "ffn_output"),
        token_types="own table",
    ),
    # MPNet takes 1 for the pad id of its positions, whatever the configuration says.
    "mpnet": Family(unused_positions=2, lora_targets=("q", "k", "v", "o", "dense")),
    "deberta-v2": Family(
        hidden=("hidden_size", "pooler_hidden_size"),
        settings={
            # Without these the family is BERT: disentangled attention is off in its default configuration.
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
        },
        lora_targets=("query_proj", "key_proj", "value_proj", "dense"),
        token_types="own table",
    ),
    "gpt2": Family(
        hidden=("n_embd",),
        layers="n_layer",
        heads=("n_head",),
        feed_forward="n_inner",
        positions=("n_positions",),
        dropout=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
        # Its own default is the same curve spelt out in tanh and powers: over twenty times slower on a CPU.
        settings={"activation_function": "gelu"},
        lora_targets=("c_attn", "c_proj", "c_fc"),
        position_wise=("transformer.h.{last}.mlp",),
        token_types="items",
        attention_values=_GPT_VALUES,
    ),
    # Norms behind the sums, as in the Transformer and SASRec of 2017 and 2018.
    "openai-gpt": Family(
        hidden=("n_embd",),
        layers="n_layer",
        heads=("n_head",),
        feed_forward="",
        positions=("n_positions",),
        dropout=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
        lora_targets=("c_attn", "c_proj", "c_fc"),
        position_wise=("transformer.h.{last}.mlp",),
        attention_values=_GPT_VALUES,
        token_types="items",
    ),
    "llama": _LLAMA,
    "qwen2": Family(
        heads=_LLAMA.heads,
        dropout=_LLAMA.dropout,
        lora_targets=_LLAMA_LINEARS,
        position_wise=_LLAMA_PLACES,
        rotary_axes=1,
    ),
    "qwen3": _LLAMA,
    # Gated attention on three sets of positions; `recbert.models.times` spreads them, and
    # leaves out the linear layers of its default configuration.
    "qwen3_5_text": Family(
        heads=_LLAMA.heads,
        head_size=_LLAMA.head_size,
        dropout=_LLAMA.dropout,
        lora_targets=_LLAMA_LINEARS,
        position_wise=_LLAMA_PLACES,
        rotary_axes=3,
    ),
    "mistral": _WINDOWLESS_LLAMA,
    "gemma3_text": Family(
        heads=_LLAMA.heads,
        head_size=("head_dim", "query_pre_attn_scalar"),
        dropout=_LLAMA.dropout,
        lora_targets=_LLAMA_LINEARS,
        rotary_axes=1,
    ),
    "mamba": Family(
        heads=(),
        feed_forward="expand",
        feed_forward_is_factor=True,
        positions=(),
        dropout=(),
        # peft refuses out_proj and conv1d here: the kernels read their weights past the module's forward.
        lora_targets=("in_proj", "x_proj"),
    ),
    "opt": Family(
        hidden=("hidden_size", "word_embed_proj_dim"),
        feed_forward="ffn_dim",
        dropout=("dropout", "attention_dropout"),
        lora_targets=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    ),
    "gpt_neox": Family(
        dropout=("hidden_dropout", "attention_dropout"),
        lora_targets=("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
        rotary_axes=1,
    ),
    "phi3": Family(
        heads=_LLAMA.heads,
        positions=("max_position_embeddings", "original_max_position_embeddings"),
        dropout=("resid_pdrop", "embd_pdrop", "attention_dropout"),
        lora_targets=("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
        rotary_axes=1,
    ),
}

OTHER = Family(
    hidden=("hidden_size", "embedding_size"),
    heads=("num_attention_heads", "num_key_value_heads"),
    head_size=("head_dim",),
    # One spare position: the kin of RoBERTa among these start behind the pad id.
    unused_positions=1,
    dropout=(
        *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"),
        *("hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "embedding_dropout"),
    ),
)

REFUSED: dict[str, str] = {
    "gemma2": "it soft-caps its logits behind the item matrix",
    "nanochat": "it soft-caps its logits behind the item matrix",
    "vaultgemma": "it soft-caps its logits behind the item matrix",
}


def supported_families(objective: str) -> list[str]:
    """The names `build_model` accepts for an objective, sorted.

    Those in FAMILIES, "lstm" and "gru" are tested; the rest are tried by uniform names and probed when built.

    Raises:
        ValueError: an objective other than "masked-item" and "next-item".
    """
    if objective == "masked-item":
        names = set(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    elif objective == "next-item":
        names = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *CELLS}
    else:
        raise ValueError(f"objective={objective!r}: must be one of {', '.join(OBJECTIVES)}.")
    return sorted(names - set(REFUSED))


def find_family(family: str, objective: str) -> Family:
    """The table row of a family, or the row of uniform names where the table has none.

    Raises:
        ValueError: unknown objective or family, or a pair of both that does not exist.
    """
    supported = supported_families(objective)
    if family in supported:
        return FAMILIES.get(family, OTHER)
    if family in REFUSED:
        raise ValueError(f"family={family!r}: refused, because {REFUSED[family]}.")
    tested = [name for name in supported if name in FAMILIES or name in CELLS]
    other = next(name for name in OBJECTIVES if name != objective)
    if family in supported_families(other):
        problem = f"has no {objective} head (it works with objective={other!r})"
    else:
        near = difflib.get_close_matches(family, supported, n=3)
        problem = "is unknown" + (f"; nearest names: {', '.join(near)}" if near else "")
    mapping = "masked-LM" if objective == "masked-item" else "causal-LM"
    raise ValueError(
        f"family={family!r} {problem}. Tested families for {objective}: {', '.join(tested)}; other model "
        f"types of the {mapping} mapping of transformers are tried as well."
    )


def default_lora_targets(family: str) -> list[str] | str:
    """The modules LoRA adapts by default in a family: attention and feed-forward, or "all-linear".

    Names outside the table get "all-linear", which peft resolves to every linear layer but the item head.
    """
    if family in CELLS:
        return ["projection"]
    targets = FAMILIES.get(family, OTHER).lora_targets
    return list(targets) if targets else "all-linear"
