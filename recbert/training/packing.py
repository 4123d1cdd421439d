"""Whether the batches of a run can be packed."""

import logging

from transformers import PreTrainedModel

from recbert.objectives import MaskedItem, NextItem
from recbert.training.arguments import RecTrainingArguments

logger = logging.getLogger(__name__)


def prepare_packing(
    model: PreTrainedModel, objective: NextItem | MaskedItem, args: RecTrainingArguments
) -> bool:
    """Switch a model to variable-length flash attention for packed batches, where that is possible.

    Args:
        model: the model to train; its attention implementation is changed.
        objective: what is predicted.
        args: training arguments.

    Returns:
        Whether batches are to be packed; a warning says why not.

    Raises:
        ValueError: packing is asked for with an objective that looks both ways, or with positions that are
            anchored on the right.
    """
    if not args.packing:
        return False
    if objective.input_format.objective != "next-item":
        raise ValueError(
            "packing is true, but masked-item rows cannot be packed: use the next-item objective"
        )
    if objective.input_format.anchoring == "right":
        raise ValueError(
            "packing is true and anchoring 'right', but packed rows are told apart by positions that begin "
            "with 0: drop one of them"
        )
    if "rotary" in (objective.input_format.time_encoding or ""):
        raise ValueError(
            "packing is true, but time stands in the positions, which would keep packed rows apart: leave "
            "packing out, or use objective.time 'gaps'"
        )
    reason = _obstacle(model, args)
    if reason:
        logger.warning("packing is true, but %s: batches are grouped by length instead", reason)
    return not reason


def _obstacle(model: PreTrainedModel, args: RecTrainingArguments) -> str:
    """Say what keeps batches from being packed; nothing if flash attention is on."""
    if args.device.type != "cuda":
        return f"the device is {args.device.type} and variable-length flash attention needs a GPU"
    if not (args.bf16 or args.fp16):
        return "flash attention needs training.bf16 or training.fp16"
    try:
        model.set_attn_implementation("flash_attention_2")
    except (ImportError, ValueError) as error:
        return f"flash attention is not to be had ({' '.join(str(error).split())[:160]})"
    if model.config._attn_implementation != "flash_attention_2":
        return f"{model.config.model_type} has no flash attention"
    return ""
