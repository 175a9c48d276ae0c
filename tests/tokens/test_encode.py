"""Encoding: the ids of `tokenizers`, eos last, special tokens in a text as plain text."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from pipelines.errors import UserError
from pipelines.tokens import encode as module
from pipelines.tokens.encode import EncodeConfig, TokenizerInfo, encode, encode_array, encode_texts, tokenizer_info
from pipelines.tokens.presets import EOS, SPECIAL_TOKENS
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer


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


def utf8(rows: list[bytes | None], kind: Any) -> pa.Array:
    """Bytes as a string array, unchecked, as a writer of Parquet may leave them."""
    binary = pa.array(rows, pa.large_binary() if kind == pa.large_string() else pa.binary())
    return pa.Array.from_buffers(kind, len(rows), binary.buffers(), binary.null_count)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"the \xffwater", "the \ufffdwater"),
        (b"\xc3", "\ufffd"),
        (b"a\xe6\xb0", "a\ufffd"),  # one for the part of a character that is there
        (b"\xe6\xb0a\xb4", "\ufffda\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),  # a byte that begins nothing
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # half a surrogate pair
        (b"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"),  # past the end of Unicode
        ("\u6c34\x00\U0001f30a".encode(), "\u6c34\x00\U0001f30a"),
    ],
)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_broken_bytes_are_replaced(cfg: EncodeConfig, data: bytes, text: str, kind: Any) -> None:
    ids, offsets = encode_array(utf8([b"wheel", data, None, data, b"water"], kind).slice(1, 3), cfg)
    expected = [*Tokenizer.from_file(cfg.tokenizer).encode(text).ids, 0]
    assert ids.tolist() == expected * 2
    assert offsets.tolist() == [0, len(expected), len(expected), 2 * len(expected)]


def test_half_a_surrogate_pair_in_a_str_is_broken_too(cfg: EncodeConfig) -> None:
    lone, replaced = encode_texts(["a\ud800b", "a\ufffd\ufffd\ufffdb"], cfg)
    assert lone.tolist() == replaced.tolist()


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_any_type_of_text(cfg: EncodeConfig, kind: Any) -> None:
    texts = ["the wheel", None, "", "water \u6c34", "the wheel"]
    expected, bounds = encode_array(pa.array(texts), cfg)
    if pa.types.is_dictionary(kind):
        texts_of_kind = pa.array(texts).dictionary_encode()
    else:
        texts_of_kind = pa.array([t if t is None or kind != pa.binary() else t.encode() for t in texts], kind)
    ids, offsets = encode_array(texts_of_kind, cfg)
    assert ids.tolist() == expected.tolist()
    assert offsets.tolist() == bounds.tolist()
    part, _ = encode_array(texts_of_kind.slice(3), cfg)
    assert part.tolist() == expected[bounds[3] :].tolist()


def test_no_rows(cfg: EncodeConfig) -> None:
    ids, offsets = encode_array(pa.array([], pa.string()), cfg)
    assert (len(ids), offsets.tolist()) == (0, [0])
    assert encode(pa.record_batch({"text": pa.array([], pa.string())}), cfg).column("tokens").type == pa.list_(pa.uint32())
    assert encode(pa.record_batch({"text": pa.array([None], pa.string())}), cfg).column("tokens").to_pylist() == [None]


def test_threads_share_a_tokenizer(cfg: EncodeConfig) -> None:
    batches = [pa.array([f"the {n} wheel{k} turns water {n * k}" for k in range(500)]) for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: encode_array(batch, cfg)[0].tolist(), batches))
    assert together == [encode_array(batch, cfg)[0].tolist() for batch in batches]


def test_a_tokenizer_of_another_kind_goes_to_the_library(tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = json.loads(path.read_text())
    data["normalizer"] = {"type": "NFC"}
    (tmp_path / "other.json").write_text(json.dumps(data))
    info = tokenizer_info(tmp_path / "other.json")
    cfg, texts = EncodeConfig(info.path, info.sha256), ["cafe\u0301 wheel", None, "", "<|endoftext|>"]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            rows = encode(pa.record_batch({"text": pa.array(texts)}), cfg).column("tokens").to_pylist()
    plain = Tokenizer.from_file(info.path)
    plain.encode_special_tokens = True
    assert rows == [None if t is None else [*plain.encode(t).ids, 0] for t in texts]
    assert rows[0] == [*plain.encode("caf\u00e9 wheel").ids, 0]
    (said,) = [r.getMessage() for r in caplog.records if "other.json" in r.getMessage()]
    assert "it has a normalizer, NFC" in said


def test_a_sample_is_held_against_the_library(cfg: EncodeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an encoder that is wrong about one text, the run fails at that text and nothing is written."""
    texts = pa.array(["the water", "wheel", "long " * 5000])
    right, library = module._load(cfg.tokenizer, cfg.sha256, EOS)

    def wrong(array: pa.Array) -> Any:
        ids, offsets = right(array)
        ids[-2] += 1  # the last id of the last text
        return ids, offsets

    monkeypatch.setattr(module, "SAMPLED", 1)
    doc_ids = pa.array([b"\x01" * 16, b"\x02" * 16, b"\x03" * 16])
    for row in (0, 1):
        chosen = texts.slice(row, 1)
        ids, offsets = wrong(chosen)
        message = (
            f"the ids of document {doc_ids[row].as_py().hex()} differ from those of tokenizers at position {len(ids) - 2}: "
        )
        with pytest.raises(RuntimeError, match=message):
            module._check(chosen, ids, offsets, wrong, library, doc_ids[row:])
    ids, offsets = wrong(texts.slice(2, 1))
    with pytest.raises(RuntimeError, match="the first 16384 bytes of row 0 differ"):
        module._check(texts.slice(2, 1), ids, offsets, wrong, library, None)
    encode_array(texts, cfg, doc_ids)  # all three, as they are


def test_about_one_text_in_so_many_is_in_the_sample(cfg: EncodeConfig) -> None:
    held = []
    texts = pa.array([f"{n} the water" for n in range(40_000)])
    encoder, library = module._load(cfg.tokenizer, cfg.sha256, EOS)

    def counted(array: pa.Array) -> Any:
        held.append(array[0].as_py())
        return library(array)

    ids, offsets = encoder(texts)
    module._check(texts, ids, offsets, encoder, counted, None)
    assert 5 < len(held) < 50
    first = list(held)
    held.clear()
    module._check(texts, ids, offsets, encoder, counted, None)
    assert held == first


def test_the_ids_end_where_they_differ() -> None:
    with pytest.raises(RuntimeError, match=r"at position 2: \[\] and \[7\]"):
        module._compare("a", np.array([1, 2], np.uint32), np.array([1, 2, 7], np.uint32))
    module._compare("a", np.array([1], np.uint32), np.array([1], np.uint32))
