"""The program of a model card: the ten best items of a history, without recbert."""

from typing import Any

from recbert.checkpoint.info import CheckpointInfo
from recbert.checkpoint.timed_snippet import ARGUMENTS, time_lines
from recbert.tokenizer import BOS_ID, MAPPED_FROM, MASK_ID

_AUTO_CLASSES = {"masked-item": "AutoModelForMaskedLM", "next-item": "AutoModelForCausalLM"}
_RECURRENT = "recbert-recurrent"

_SNIPPET = r"""
import {modules}
{imports}
from transformers.utils import cached_file
{arguments}
special = re.compile(r"[\s%]|\[(?=(?:PAD|UNK|MASK|BOS|EOS|unused[0-9]+)\])")
tokens = lambda items: [special.sub(lambda m: urllib.parse.quote(m[0], safe=""), item) for item in items]
tokenizer = AutoTokenizer.from_pretrained(name)
{model}.eval()
info = json.load(open(cached_file(name, "recbert.json"), encoding="utf-8"))
{known}
scores = model({call}).logits[0, -1].detach().float()
scores[:69] = -torch.inf  # tokens that are not items
scores[{blocked}tokenizer.convert_tokens_to_ids(tokens(info["deny_list"]))] = -torch.inf
for score, token_id in zip(*scores.topk(min(10, len(scores)))):
    print(urllib.parse.unquote(tokenizer.convert_ids_to_tokens(int(token_id))), float(score))
"""

_KNOWN = (
    "known = [i for i in tokenizer.convert_tokens_to_ids(tokens(history)) if i != tokenizer.unk_token_id]"
)
_KNOWN_LARGE = "known = [69 + places[item] for item in history if item in places]"
_PAIRS = (
    "pairs = [p for p in zip(tokenizer.convert_tokens_to_ids(tokens(history)), times) "
    "if p[0] != tokenizer.unk_token_id]"
)
_PAIRS_LARGE = "pairs = [(69 + places[item], t) for item, t in zip(history, times) if item in places]"
_ARGUMENTS = (
    "name, *history = sys.argv[1:]  # the folder or Hub id of this model, then item ids, the oldest first"
)

_GROWN = """
base = {auto_class}.from_pretrained({base!r})
base.resize_token_embeddings(69 + {items}, mean_resizing=False)
if (bias := base.get_output_embeddings().bias) is not None:
    bias.data[-{own}:] = bias[69:-{own}].mean()  # of the adapter's own items
model = PeftModel.from_pretrained(base, name).merge_and_unload()
""".strip()

_LARGE_SNIPPET = r"""
import {modules}
from safetensors.torch import load_file
{imports}
from transformers.utils import cached_file
{arguments}
{model}.eval()
info = json.load(open(cached_file(name, "recbert.json"), encoding="utf-8"))
items = load_file(cached_file(name, "items.safetensors"))
text, ends = items["text"].numpy().tobytes(), [0, *items["ends"].tolist()]
ids = [text[start:end].decode() for start, end in zip(ends, ends[1:])]
places = {{item: place for place, item in enumerate(ids)}}
{known}
scores = model({call}).logits[0, -1, 69:].detach().float()  # the first 69 tokens are not items
scores[[places[item] for item in {blocked}info["deny_list"] if item in places]] = -torch.inf
for score, place in zip(*scores.topk(min(10, len(scores)))):
    print(ids[int(place)], float(score))
"""


def build_snippet(info: CheckpointInfo, config_json: dict[str, Any], base: str | None = None) -> str:
    """Write a program of at most 20 lines that prints the ten best items of a history without recbert.

    It is called as `python snippet.py FOLDER_OR_HUB_ID ITEM_ID...`, with a time encoding as
    `python snippet.py FOLDER_OR_HUB_ID NOW ITEM_ID TIME...`, and prints one item id and score a line. A
    recurrent model is not part of transformers: its program imports `recbert.recurrent` for the class.

    Args:
        info: the checkpoint's `recbert.json`.
        config_json: content of `config.json` (of the base, for an adapter).
        base: folder or Hub id of the base that an adapter goes onto.

    Returns:
        Python source.
    """
    auto_class = _AUTO_CLASSES[info.input.objective]
    large = len(info.popularity) > MAPPED_FROM  # then the vocabulary is no stock tokenizer
    imports = [f"from transformers import {auto_class}{'' if large else ', AutoTokenizer'}"]
    model = f"model = {auto_class}.from_pretrained(name)"
    if base is not None:
        imports.insert(0, "from peft import PeftModel")
        model = f"model = PeftModel.from_pretrained({auto_class}.from_pretrained({base!r}), name)"
    if info.own_items:
        model = _GROWN.format(
            auto_class=auto_class, base=base, items=len(info.popularity), own=info.own_items
        )
    if config_json.get("model_type") == _RECURRENT:
        imports.append("import recbert.recurrent  # the class of the model; it is not part of transformers")
    query = f"known[-{info.input.history_length}:]"
    if info.input.starts_with_bos:
        query = f"[{BOS_ID if large else 'tokenizer.bos_token_id'}] + {query}"
    mask, seen = (f"[{MASK_ID}]", "history") if large else ("[tokenizer.mask_token_id]", "known")
    query = f"{query} + {mask}" if info.input.append_mask else query
    known, call = _KNOWN_LARGE if large else _KNOWN, f"input_ids=torch.tensor([{query}])"
    if info.input.time_encoding is not None:
        pairs = _PAIRS_LARGE if large else _PAIRS
        lines = time_lines(info.input, query)
        known, call = f"{pairs}\n{lines.before}", lines.call
    if info.input.anchoring == "right":
        call = call.replace(query, f"query := {query}", 1)
        end = info.input.max_length
        call += f", position_ids=torch.arange({end} - len(query), {end})[None]"
        call += ", attention_mask=torch.ones(1, len(query))"
    modules = "itertools, json, math" if info.input.time_encoding else "json"
    source = (_LARGE_SNIPPET if large else _SNIPPET).format(
        modules=f"{modules}, sys, torch" if large else f"{modules}, re, sys, torch, urllib.parse",
        arguments=ARGUMENTS if info.input.time_encoding else _ARGUMENTS,
        imports="\n".join(imports),
        model=model,
        known=known,
        call=call,
        blocked=f"{seen} + " if info.filter_seen else "",
    )
    return source.strip()
