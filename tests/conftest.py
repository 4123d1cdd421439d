"""What every test shares: no network, one thread, and the smallest data and models that mean something."""

import os

# Read by the Hugging Face libraries while they are imported, so they must stand before anything else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, set_seed

from recbert.tokenizer import ItemTokenizer

torch.set_num_threads(1)

TWELVE_EVENTS = """\
user_id,item_id,timestamp,event_type,value
anna,tea,100,view,3.0
anna,cup,200,buy,4.0
anna,pot,300,buy,5.0
anna,jam,400,view,2.0
bob,tea,150,view,1.0
bob,pot,250,buy,5.0
bob,cup,350,buy,4.0
cleo,jam,120,view,3.5
cleo,tea,220,buy,4.5
cleo,pan,500,view,2.5
dan,cup,450,view,4.0
dan,tea,550,buy,5.0
"""
"""Four users, five items, all times different; anna comes first and dan joins last."""

TWELVE_ITEMS = ["cup", "jam", "pan", "pot", "tea"]
"""The items of the twelve events in token order."""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start each test from the same state of every random generator."""
    set_seed(0)


@pytest.fixture
def events_csv(tmp_path: Path) -> Path:
    """The twelve events as a CSV file."""
    path = tmp_path / "events.csv"
    path.write_text(TWELVE_EVENTS, encoding="utf-8")
    return path


@pytest.fixture
def events() -> pl.DataFrame:
    """The twelve events as a canonical event table in polars."""
    frame = pl.read_csv(TWELVE_EVENTS.encode(), schema_overrides={"timestamp": pl.Float64})
    return frame.with_row_index("order").with_columns(pl.col("order").cast(pl.Int64))


@pytest.fixture(scope="session")
def tokenizer() -> ItemTokenizer:
    """The tokenizer of the five items: token ids 69 to 73 in the order of TWELVE_ITEMS."""
    return ItemTokenizer.from_items(TWELVE_ITEMS)


@pytest.fixture
def tiny_gpt2(tokenizer: ItemTokenizer) -> GPT2LMHeadModel:
    """A next-item model with random weights: one layer, eight wide, 16 positions, no dropout."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=8,
        n_layer=1,
        n_head=2,
        n_positions=16,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=3,
        eos_token_id=4,
        pad_token_id=0,
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture
def tiny_bert(tokenizer: ItemTokenizer) -> BertForMaskedLM:
    """A masked-item model with random weights: one layer, eight wide, 16 positions, no dropout."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    return BertForMaskedLM(config).eval()
