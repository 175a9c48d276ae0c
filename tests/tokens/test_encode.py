"""Encoding: the ids of `tokenizers`, eos last, special tokens in a text as plain text."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from pipelines.errors import UserError
from pipelines.tokens import encode as module
from pipelines.tokens.encode import EncodeConfig, TokenizerInfo, encode, encode_texts, tokenizer_info
from pipelines.tokens.train import EOS, SPECIAL_TOKENS, TokenizerConfig, save, train_tokenizer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save(train_tokenizer(["the water turns the wheel " * 5], TokenizerConfig(vocab_size=300)), folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def cfg(path: Path) -> EncodeConfig:
    return EncodeConfig(str(path), tokenizer_info(path).sha256)


def test_the_stage_adds_tokens_and_keeps_rows(cfg: EncodeConfig, path: Path) -> None:
    texts = ["the water", None, "", "wheel"]
    batch = encode(pa.record_batch({"doc_id": pa.array([b"a", b"b", b"c", b"d"]), "text": pa.array(texts)}), cfg)
    plain = Tokenizer.from_file(str(path))
    assert batch.schema.field("tokens").type == pa.list_(pa.uint32())
    assert batch.column("tokens").to_pylist() == [None if t is None else [*plain.encode(t).ids, 0] for t in texts]
    assert batch.column("doc_id").to_pylist() == [b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_special_tokens_in_a_text_are_text(cfg: EncodeConfig, special: str) -> None:
    (ids,) = encode_texts([f"a{special} b"], cfg)
    assert ids[-1] == 0
    assert ids[:-1].min() >= len(SPECIAL_TOKENS)
    assert Tokenizer.from_file(cfg.tokenizer).decode(ids[:-1].tolist(), skip_special_tokens=False) == f"a{special} b"


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(max_size=30), max_size=8))
def test_chunks_change_nothing(cfg: EncodeConfig, texts: list[str]) -> None:
    whole = [t.tolist() for t in encode_texts(texts, cfg)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", 10)
        assert [t.tolist() for t in encode_texts(texts, cfg)] == whole


def test_the_type_follows_from_the_largest_id_with_added_tokens(path: Path, tmp_path: Path) -> None:
    info = tokenizer_info(path)
    assert (info.eos_id, info.dtype) == (0, "uint16")
    tokenizer = Tokenizer.from_file(str(path))
    before = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([AddedToken("<|new|>", special=True)])
    save(tokenizer, tmp_path)
    assert tokenizer_info(tmp_path / "tokenizer.json").vocab_size == before + 1
    assert [TokenizerInfo("", "", n, 0).dtype for n in (65_536, 65_537)] == ["uint16", "uint32"]


def test_tokenizers_that_cannot_be_used(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        tokenizer_info(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(UserError, match=r"broken\.json is no tokenizer\.json"):
        tokenizer_info(tmp_path / "broken.json")
    with pytest.raises(UserError, match="has no token '</s>'"):
        tokenizer_info(path, eos="</s>")
    with pytest.raises(UserError, match="run again with one tokenizer"):
        list(encode_texts(["a"], EncodeConfig(str(path), "0" * 64)))
    assert tokenizer_info(path, eos=EOS).eos_id == 0


def test_an_eos_of_another_name(tmp_path: Path) -> None:
    save(train_tokenizer(["water"], TokenizerConfig(vocab_size=300, special_tokens=("<s>", "</s>"))), tmp_path)
    info = tokenizer_info(tmp_path / "tokenizer.json", eos="</s>")
    (ids,) = encode_texts([""], EncodeConfig(info.path, info.sha256, info.eos))
    assert ids.tolist() == [info.eos_id] == [1]
