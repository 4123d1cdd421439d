"""Item ids survive the way to token ids and back, whatever they are spelled like."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from recbert.tokenizer import FIRST_ITEM_ID, SPECIAL_TOKENS, ItemTokenizer, escape_item, unescape_item

HARD_IDS = [
    "plain",
    "318",
    "two words",
    " leading",
    "trailing ",
    "tab\tnewline\n",
    "a,b;c|d",
    '"quoted"',
    "Amélie",
    "Ame\u0301lie",
    "七人の侍",
    "🎬🍿",
    "👩‍👩‍👧",
    "nbsp\u00a0ideographic\u3000line\u2028unit\x1f",
    "\ufeffbom",
    "zero\u200bwidth",
    "100%",
    "%20",
    "%5BMASK]",
    "[MASK]",
    "x[PAD]y",
    "[[EOS]]",
    "[unused3]",
    "[unused99]",
    "[sic]",
    "[",
    "##piece",
    "\x00nul",
    "x" * 300,
    "🎬 " * 100,
]


def joined(item_ids: list[str]) -> str:
    return " ".join(escape_item(item_id) for item_id in item_ids)


def test_layout() -> None:
    tokenizer = ItemTokenizer.from_items(["b", "a", "b", "10", "9"])
    assert tokenizer.item_ids == ["10", "9", "a", "b"]
    assert tokenizer.encode(["10", "9", "a", "b"]) == [69, 70, 71, 72]
    assert (len(tokenizer), tokenizer.num_items) == (73, 4)
    assert tokenizer.encode(["a", "absent", "b"]) == [71, 1, 72]
    assert "a" in tokenizer and "absent" not in tokenizer and "[MASK]" not in tokenizer
    special = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id]
    assert [*special, tokenizer.bos_token_id, tokenizer.eos_token_id] == [0, 1, 2, 3, 4]
    assert tokenizer.decode([0, 1, 2, 5, 68, 69]) == [
        "[PAD]",
        "[UNK]",
        "[MASK]",
        "[unused0]",
        "[unused63]",
        "10",
    ]
    assert FIRST_ITEM_ID == 69 and len(SPECIAL_TOKENS) == 69
    with pytest.raises(ValueError, match="holds 73; allowed are 0 to 72"):
        tokenizer.decode([73])


def test_special_ids_of_the_stock_tokenizer_agree() -> None:
    hf = ItemTokenizer.from_items(["a"]).hf
    assert isinstance(hf, PreTrainedTokenizerFast)
    ids = [hf.pad_token_id, hf.unk_token_id, hf.mask_token_id, hf.bos_token_id, hf.eos_token_id]
    assert ids == [0, 1, 2, 3, 4]
    assert hf.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(69))
    assert list(hf("a")) == ["input_ids", "attention_mask"]


def test_hard_ids_survive_saving_and_plain_loading(tmp_path: Path) -> None:
    tokenizer = ItemTokenizer.from_items(HARD_IDS)
    tokenizer.save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    token_ids = tokenizer.encode(HARD_IDS)
    assert sorted(token_ids) == list(range(FIRST_ITEM_ID, FIRST_ITEM_ID + len(HARD_IDS)))
    assert tokenizer.decode(token_ids) == HARD_IDS
    assert plain(joined(HARD_IDS)).input_ids == token_ids
    assert [unescape_item(token) for token in plain.decode(token_ids).split(" ")] == HARD_IDS
    again = ItemTokenizer.from_pretrained(tmp_path)
    assert again.item_ids == tokenizer.item_ids
    assert again.encode(HARD_IDS) == token_ids


def test_random_ids_round_trip(tmp_path: Path) -> None:
    draw = random.Random(0)
    pieces = [*"ab %[]\t\u3000\u2028é🎬\x1c\x85", "[MASK]", "[PAD", "unused7]", "%25", "[UNK]", "MASK]"]
    ids = {"".join(draw.choices(pieces, k=draw.randint(1, 12))) for _ in range(5000)}
    ids |= {chr(c) + "x" for c in range(0x110000) if c < 0x3100 or chr(c).isspace()}
    item_ids = sorted(ids)
    assert [unescape_item(escape_item(i)) for i in item_ids] == item_ids
    assert len({escape_item(i) for i in item_ids}) == len(item_ids)
    tokenizer = ItemTokenizer.from_items(ids)
    tokenizer.save_pretrained(tmp_path)
    draw.shuffle(item_ids)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert plain(joined(item_ids)).input_ids == tokenizer.encode(item_ids)


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "gpt2", "llama", "qwen3", "gemma3_text", "deberta-v2", "mamba"]
)
def test_a_config_beside_it_changes_nothing(family: str, tmp_path: Path) -> None:
    tokenizer = ItemTokenizer.from_items(HARD_IDS)
    tokenizer.hf.model_max_length = 50
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert plain(joined(HARD_IDS)).input_ids == tokenizer.encode(HARD_IDS)
    assert plain.model_max_length == 50
    assert ItemTokenizer.from_pretrained(tmp_path).item_ids == tokenizer.item_ids


def test_large_vocabulary_builds_fast() -> None:
    start = time.process_time()
    tokenizer = ItemTokenizer.from_items(f"item {i}" for i in range(200_000))
    assert tokenizer.num_items == 200_000
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "items is empty"),
        ("abc", "items is one string"),
        (["a", 3], "holds 3; item ids are non-empty strings"),
        (["a", ""], "holds ''"),
        (["a", None], "holds None"),
        (["a", "\ud800"], "not Unicode"),
    ],
)
def test_bad_items(items: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ItemTokenizer.from_items(items)


def test_foreign_tokenizers_are_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    special = {token: i for i, token in enumerate(SPECIAL_TOKENS)}

    def save(backend: Tokenizer) -> Path:
        backend.pre_tokenizer = backend.pre_tokenizer or pre_tokenizers.WhitespaceSplit()
        PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
        return tmp_path

    with pytest.raises(ValueError, match=r"lacks \[PAD\] at 0, "):
        ItemTokenizer.from_pretrained(
            save(Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")))
        )
    with pytest.raises(ValueError, match="holds no items"):
        ItemTokenizer.from_pretrained(save(Tokenizer(models.WordLevel(special, unk_token="[UNK]"))))
    with pytest.raises(ValueError, match="gaps"):
        gap = {**special, "a": 70}
        ItemTokenizer.from_pretrained(save(Tokenizer(models.WordLevel(gap, unk_token="[UNK]"))))
    with pytest.raises(ValueError, match="its model is BPE"):
        ItemTokenizer.from_pretrained(save(Tokenizer(models.BPE({"a": 0}, []))))
    with pytest.raises(ValueError, match="normalise nothing"):
        lower = Tokenizer(models.WordLevel({**special, "a": 69}, unk_token="[UNK]"))
        lower.normalizer = normalizers.Lowercase()
        ItemTokenizer.from_pretrained(save(lower))


def test_absent_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer\.json"):
        ItemTokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder nor a Hub id"):
        ItemTokenizer.from_pretrained(tmp_path / "absent")


def test_imports_no_data_frame_library() -> None:
    code = (
        "import sys; sys.modules.update({m: None for m in ('polars', 'narwhals', 'datasets', 'pandas')});"
        "from recbert.tokenizer import ItemTokenizer; ItemTokenizer.from_items(['a'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_vocabulary_extends_those_that_it_begins_with() -> None:
    old = ItemTokenizer.from_items(["b", "a"])
    grown = old.with_items(["c"])
    assert grown.extends(old) and old.extends(old) and old.extends(ItemTokenizer.from_items(["a", "b"]))
    assert not old.extends(grown)
    assert not ItemTokenizer.from_items(["a", "c", "d"]).extends(old)
