"""Language models whose words give way to items."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from recbert.models import build_from_backbone, check_fits, item_table
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "red", "blue", "tea", "cup", "pot", "of", "the"]
TITLES = ["red tea", "blue tea", "cup", "", "the pot of tea"]
SIZES = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "bert": BertConfig(**SIZES, intermediate_size=32, max_position_embeddings=20, pad_token_id=0),
    "roberta": RobertaConfig(
        **SIZES, intermediate_size=32, max_position_embeddings=22, pad_token_id=1, type_vocab_size=1
    ),
    "gpt2": GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=20),
    "llama": LlamaConfig(
        **SIZES, intermediate_size=32, max_position_embeddings=20, tie_word_embeddings=False
    ),
}
PAIRS = [("bert", "masked-item"), ("roberta", "masked-item"), ("bert", "next-item"), ("gpt2", "next-item")]
PAIRS += [("llama", "next-item")]


@pytest.fixture
def tokenizer() -> ItemTokenizer:
    return ItemTokenizer.from_items(["a", "b", "c", "d", "e"])


def save(folder: Path, family: str, objective: str) -> Path:
    """A language model of twelve words with random weights of some size."""
    auto = AutoModelForMaskedLM if objective == "masked-item" else AutoModelForCausalLM
    model = auto.from_config(CONFIGS[family])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    words = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(folder)
    return folder


def rows_of(model: torch.nn.Module) -> torch.Tensor:
    return model.get_input_embeddings().weight.detach()


@pytest.mark.parametrize(("family", "objective"), PAIRS)
def test_blocks_stay_and_items_take_the_place_of_words(family, objective, tokenizer, tmp_path):
    folder = save(tmp_path / "words", family, objective)
    auto = AutoModelForMaskedLM if objective == "masked-item" else AutoModelForCausalLM
    causal = {"is_decoder": True} if (family, objective) == ("bert", "next-item") else {}
    old = auto.from_pretrained(folder, **causal)
    model = build_from_backbone(str(folder), tokenizer, objective=objective, max_length=18).eval()
    check_fits(model, tokenizer, 18)
    table = rows_of(old)
    assert torch.equal(rows_of(model)[[0, 1, 2, 3, 4]], table[[0, 3, 4, 1, 2]])
    # The same vectors in front of the blocks give the same states behind them.
    ids = torch.tensor([[5, 6, 7, 2, 8]])
    with torch.no_grad():
        model.get_input_embeddings().weight[FIRST_ITEM_ID : FIRST_ITEM_ID + 5] = table[[5, 6, 7, 8, 9]]
        mine = {
            5: FIRST_ITEM_ID,
            6: FIRST_ITEM_ID + 1,
            7: FIRST_ITEM_ID + 2,
            8: FIRST_ITEM_ID + 3,
            2: 4,
        }
        renamed = torch.tensor([[mine[int(word)] for word in ids[0]]])
        states = [
            net(input_ids=words).last_hidden_state
            for net, words in ((old.base_model.eval(), ids), (model.base_model, renamed))
        ]
    torch.testing.assert_close(states[1], states[0], atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path / "items")
    again = auto.from_pretrained(tmp_path / "items").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(renamed).logits, model(renamed).logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("start", ["title-tokens", "title-states"])
@pytest.mark.parametrize(("family", "objective"), [("bert", "masked-item"), ("llama", "next-item")])
def test_items_begin_at_their_titles(family, objective, start, tokenizer, tmp_path):
    folder = save(tmp_path / "words", family, objective)
    options = {"objective": objective, "start": start, "max_length": 18}
    model = build_from_backbone(str(folder), tokenizer, titles=TITLES, **options)
    twin = build_from_backbone(str(folder), tokenizer, titles=TITLES[::-1], **options)
    for table, other in ((rows_of(model), rows_of(twin)), (item_table(model)[0], item_table(twin)[0])):
        rows, reversed_rows = table[FIRST_ITEM_ID:], other[FIRST_ITEM_ID:].flip(0)
        named = [0, 1, 2, 4]
        torch.testing.assert_close(rows[named], reversed_rows[named], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(rows[3], reversed_rows[3])  # drawn: it has no title
    if start == "title-tokens":
        words = rows_of(AutoModel.from_pretrained(folder))
        parts = [[5, 7], [6, 7], [8], [11, 9, 10, 7]]
        means = torch.stack([words[places].mean(0) for places in parts])
        both = [rows - rows.mean(0) for rows in (rows_of(model)[FIRST_ITEM_ID:][named], means)]
        likeness = torch.corrcoef(torch.stack([rows.flatten() for rows in both]))[0, 1]
        torch.testing.assert_close(likeness, torch.tensor(1.0))


def test_gaps_add_token_types_that_are_alike_at_first(tokenizer, tmp_path):
    folder = save(tmp_path / "words", "bert", "masked-item")
    options = {"objective": "masked-item", "max_length": 18}
    timed = build_from_backbone(str(folder), tokenizer, time_encoding="gaps", **options).eval()
    check_fits(timed, tokenizer, 18, "gaps")
    ids = torch.tensor([[70, 71, 72, 2]])
    with torch.no_grad():
        one, other = (timed(ids, token_type_ids=torch.full_like(ids, kind)).logits for kind in (0, 9))
    assert torch.equal(one, other)


def test_dropout_of_the_recipe_reaches_the_blocks(tokenizer, tmp_path):
    folder = save(tmp_path / "words", "bert", "masked-item")
    model = build_from_backbone(str(folder), tokenizer, objective="masked-item", max_length=18, dropout=0.4)
    assert model.config.hidden_dropout_prob == model.config.attention_probs_dropout_prob == 0.4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_length": 21}, "at most 20 positions"),
        ({"start": "title-tokens"}, "no titles"),
        ({"start": "title-tokens", "titles": [""] * 5}, "no titles"),
        ({"time_encoding": "rotary"}, "does not take time as 'rotary'"),
    ],
)
def test_what_a_backbone_cannot_do_is_refused(options, expected, tokenizer, tmp_path):
    folder = save(tmp_path / "words", "bert", "masked-item")
    with pytest.raises(ValueError, match=expected):
        build_from_backbone(str(folder), tokenizer, objective="masked-item", **{"max_length": 18, **options})


def test_a_backbone_that_is_not_there_is_named(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build_from_backbone(str(tmp_path / "nowhere"), tokenizer, objective="masked-item")
