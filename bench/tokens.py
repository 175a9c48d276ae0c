"""Tokens: encoding speed against tokenizers alone, and the speed at which a training process gets batches from shards."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from bench import loader, shards
from bench.common import About, Row, installed, interleave, run_bench, sample, speed_rows, version
from bench.corpus import jsonl, texts
from pipelines.tokens.encode import EncodeConfig, encode, encode_texts, tokenizer_info
from pipelines.tokens.presets import EOS, SPECIAL_TOKENS, TOKENIZER, Preset, byte_characters, byte_level
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer

ABOUT = About(
    title="Tokens and loader",
    compared=(
        "`encode`: texts of one kind with a byte-level BPE tokenizer of one preset, trained on these texts or published, "
        "one thread (`encode` alone: all kinds, deepseek_llm, 8,192 entries). Ours is the stage, Arrow in and Arrow lists "
        "out, with its check of a sample against the library; peers are tokenizers' encode_batch_fast and tiktoken's "
        "encode_ordinary with the same ranks, ids as Python lists. Each repetition takes other texts, and the run fails "
        "if the ids differ. `loader`: tokens a second of whole batches of 16 x 4,096 in the process that trains. Ours follows "
        "a compiled schedule over two sources at 0.7 to 0.3 and gives inputs, targets, positions in their documents and "
        "cumulative lengths. datasets reads rows that were cut and packed beforehand: tokens alone and in order, or two "
        "sources mixed at random with a column of positions, which is our job; Megatron's GPTDataset draws shuffled samples "
        "of one source through its indexed reader, with the positions of the row or those in the documents; datatrove's file "
        "data set reads one file in order (what it is made for) with positions; the NumPy memory map takes random slices, as "
        "nanoGPT does, and knows neither sources nor documents. Files lie in the page cache: disks and networks are not "
        "measured. `loader start` and the two rows after it: a plan of 15 T tokens over eight sources, its shards listed in a "
        "manifest and not there (files of 1 GB): seconds to open it, then of the slowest of 100 starts from a cursor to the "
        "places that the first batch reads; memory is what both add to a process that has loaded torch. `spark encode`: MB of "
        "text a CPU second of the whole job, Parquet with 28 columns to shards with provenance, Spark warm and its share "
        "counted, against encode_array alone on the same texts in memory."
    ),
    peers=("tokenizers", "tiktoken", "datasets", "megatron-core", "datatrove", "numpy", "torch"),
)
REPEAT = 3


def corpora(data: Path) -> dict[str, list[str]]:
    """Texts by what they are: prose and code where the folder has them, and the texts of its pages."""
    pages = texts(data)
    found = {"pages": [text for text, _ in pages]}
    for name, lang in (("English", "en"), ("Chinese", "zh")):
        path = data / "prose" / f"{lang}.jsonl.zst"
        found[name] = [r["text"] for r in jsonl(path)] if path.is_file() else [text for text, of in pages if of == lang]
    for path in (data / "prose" / "code.jsonl.zst", data / "code.jsonl.gz"):
        if path.is_file():
            found["code"] = [r["text"] for r in jsonl(path)]
    return {name: documents for name, documents in found.items() if documents}


def in_parts(documents: Sequence[str], parts: int, limit: int) -> list[list[str]]:
    """About `limit` bytes of text in parts of about one size, so that no repetition meets a text that it has seen before."""
    dealt: list[list[str]] = [[] for _ in range(parts)]
    sizes = [0] * parts
    for text in documents:
        least = sizes.index(min(sizes))
        if sizes[least] >= limit // parts:
            break
        dealt[least].append(text)
        sizes[least] += len(text.encode())
    return dealt


def published(data: Path) -> Tokenizer | None:
    """GPT-2's tokenizer of `data`, if it is there."""
    folder = data / "tokenizer"
    if not (folder / "gpt2-vocab.json.gz").is_file():
        return None
    vocab = json.loads(gzip.decompress((folder / "gpt2-vocab.json.gz").read_bytes()))
    lines = gzip.decompress((folder / "gpt2-merges.txt.gz").read_bytes()).decode().splitlines()
    pairs = [line.partition(" ") for line in lines if not line.startswith("#version")]
    return byte_level("gpt2", vocab, [(left, right) for left, _, right in pairs])


def tiktoken_encoder(tokenizer: Tokenizer, preset: Preset) -> Any:
    """tiktoken's core with the same ranks; None where it is not installed, or splits in more than one pass."""
    if preset == "deepseek_llm" or not installed("tiktoken"):
        return None
    import tiktoken

    pattern = json.loads(tokenizer.to_str())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    special = set(SPECIAL_TOKENS)
    byte_of = {c: bytes([byte]) for byte, c in enumerate(byte_characters())}
    ranks = {b"".join(byte_of[c] for c in t): i for t, i in tokenizer.get_vocab().items() if t not in special}
    return tiktoken.Encoding(name="bench", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def encode_rows(data: Path, folder: Path, size: int, large: int, repeat: int) -> list[Row]:
    """MB/s of ours and of each peer by preset, vocabulary and kind of text. `size`: bytes of each kind; `large`: entries."""
    kinds = {name: in_parts(documents, repeat + 1, size) for name, documents in corpora(data).items()}
    kinds["all"] = [[text for parts in kinds.values() for text in parts[k]] for k in range(repeat + 1)]
    training = [text for part in kinds["all"] for text in part]
    made: list[tuple[Preset, int, Tokenizer]] = []
    for preset in get_args(Preset):
        for entries in sorted({8192, large}):
            made.append((preset, entries, train_tokenizer(training, TokenizerConfig(vocab_size=entries, preset=preset))))
    if (gpt2 := published(data)) is not None:
        gpt2.add_special_tokens([EOS])
        made.append(("gpt2", 0, gpt2))
    rows = []
    for preset, entries, tokenizer in made:
        save(tokenizer, folder)
        cfg = EncodeConfig(str(folder / TOKENIZER), tokenizer_info(folder / TOKENIZER).sha256)
        name = f"{preset} {entries:,}" if entries else f"{preset} as published"
        other = tiktoken_encoder(tokenizer, preset)
        for kind, parts in kinds.items():
            first = (kind, preset, entries) == ("all", TokenizerConfig().preset, 8192)
            rows += encode_row("encode" if first else f"encode {kind}, {name}", parts, cfg, tokenizer, other)
    return rows


def encode_row(name: str, parts: Sequence[list[str]], cfg: EncodeConfig, plain: Tokenizer, other: Any) -> list[Row]:
    """The rows of one kind of text. Each repetition takes the next part, for all contestants alike; the first warms them up."""
    batches = [pa.RecordBatch.from_pydict({"text": part}) for part in parts]
    turns = {"ours": iter(range(len(parts))), "tokenizers": iter(range(len(parts))), "tiktoken": iter(range(len(parts)))}

    def ours() -> Any:
        turn = next(turns["ours"])
        return encode(batches[turn], cfg).column("tokens")

    def bare() -> list[list[int]]:
        part = parts[next(turns["tokenizers"])]
        return [encoding.ids for encoding in plain.encode_batch_fast(part, add_special_tokens=False)]

    contestants: dict[str, Any] = {"ours": ours, version("tokenizers"): bare}
    if other is not None:
        contestants[version("tiktoken")] = lambda: [other.encode_ordinary(text) for text in parts[next(turns["tiktoken"])]]
    for run in contestants.values():
        run()
    seconds, results = interleave(contestants, len(parts) - 1)
    for peer, ids in results.items():
        if peer != "ours" and [[*row, 0] for row in ids] != [[*row[:-1], 0] for row in results["ours"].to_pylist()]:
            raise RuntimeError(f"{name}: the ids of {peer} are others")
    amount = sum(len(text.encode()) for part in parts[1:] for text in part) / (len(parts) - 1) / 1e6
    return speed_rows(name, "MB/s", amount, seconds, "ours")


def run(
    data: Path,
    limit: int = 250,
    steps: int = 100,
    length: int = 4096,
    repeat: int = REPEAT,
    size: int = 4 << 20,
    large: int = 65_536,
    files: int = 60_000,
    spark: int = 300 << 20,
) -> list[Row]:
    """All rows. `limit`: of texts; `steps`: batches read; `length`: tokens a sample; `size`, `large`: see `encode_rows`;
    `files`: of the long plan; `spark`: bytes of text in the table that becomes shards."""
    documents = [text for text, _ in sample(texts(data), limit)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = encode_rows(data, folder, size, large, repeat)
        save(train_tokenizer(documents, TokenizerConfig(vocab_size=8192)), folder)
        info = tokenizer_info(folder / TOKENIZER)
        ids = [some.astype(np.uint16) for some in encode_texts(documents, EncodeConfig(info.path, info.sha256))]
        rows += loader.rows(ids, info.eos_id, info.vocab_size, folder / "loader", steps, length, repeat)
        rows += loader.start_rows(folder / "long", files)
        (folder / "spark").mkdir()
        return rows + shards.spark_rows(corpora(data), folder / "spark", spark, large, repeat)


if __name__ == "__main__":
    run_bench("tokens", ABOUT, run)
