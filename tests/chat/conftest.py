"""A small real tokenizer with the chat tokens, and one without."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from pipelines.shards.template import Markers, Template, markers
from pipelines.tokens.presets import EOS
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer

TEXTS = ["What is the water level? The wheel turns, and the water says: hello hello. \u6c34\u5230\u6e20\u6210 " * 6]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save(train_tokenizer(TEXTS, TokenizerConfig(vocab_size=300)), folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a base whose makers did not think of conversations."""
    folder = tmp_path_factory.mktemp("bare")
    save(train_tokenizer(TEXTS, TokenizerConfig(vocab_size=300, special_tokens=(EOS, "<|user|>"))), folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="session")
def library(tokenizer: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tokenizer))


@pytest.fixture(scope="session")
def marks(library: Tokenizer) -> Markers:
    return markers(Template(), library.token_to_id)
