"""A base that knows its sums half: shards of made arithmetic with a tokenizer of characters, and a run folder."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from pipelines.shards import VERSION, Manifest, order_key, write_manifest, write_shard
from pipelines.shards.template import Template, markers, render_messages
from trainer.config import ModelConfig, as_dict
from trainer.model import Decoder, init_weights
from trainer.post.arithmetic import problems
from trainer.post.start import write_run

CONTEXT = 32
SPECIAL = tuple(vars(Template()).values())
CHARACTERS = "0123456789+-? What is"


def tokenizer() -> Tokenizer:
    """A token a character, and the template's."""
    entries = dict.fromkeys([Template().eos, *SPECIAL, *CHARACTERS])
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(entries)}, unk_token="?"))
    made.pre_tokenizer = Split(Regex("."), "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens(list(SPECIAL))
    return made


def write(out: Path, steps: int, largest: int = 4, seed: int = 0) -> tuple[Path, Path]:
    """OUT/shards, OUT/tokenizer and OUT/base, trained on all problems for so many steps of plain Adam; (shards, base)."""
    words = tokenizer()
    (out / "tokenizer").mkdir(parents=True)
    words.save(str(out / "tokenizer" / "tokenizer.json"))
    marks, rows = markers(Template(), words.token_to_id), []
    for problem in problems(largest, 0, ("en",)):
        turns = [(turn["role"], turn["content"]) for turn in problem["messages"]]  # type: ignore[attr-defined]
        ids, codes = render_messages(turns, marks, lambda text: words.encode(text).ids)
        name = hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
        rows.append((order_key(0, name), name, ids, codes))
    rows.sort(key=lambda row: row[:2])
    names, tokens, roles = ([row[i] for row in rows] for i in (1, 2, 3))
    file = write_shard(out / "shards", "sums", "train", 0, names, tokens, "uint16", roles)
    digest = hashlib.sha256((out / "tokenizer" / "tokenizer.json").read_bytes()).hexdigest()
    size = words.get_vocab_size()
    write_manifest(out / "shards", Manifest(VERSION, "uint16", size, marks.eos, digest, "chat", "0" * 12, (file,), 0))
    cfg = ModelConfig(vocab_size=size, width=64, layers=2, heads=4, kv_heads=2, feed_forward=128)
    model = Decoder(cfg)
    init_weights(model, 0.05, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    longest = max(map(len, tokens))
    padded = torch.tensor(np.stack([np.pad(t, (0, longest - len(t)), constant_values=-100) for t in tokens]))
    for _ in range(steps):
        model(padded[:, :-1].clamp(min=0), padded[:, 1:], None, float((padded[:, 1:] >= 0).sum())).backward()
        optimizer.step()
        optimizer.zero_grad()
    identity = {"config": "made", "shards": "none", "schedule": "none"}
    about = {"config": {"name": "base", "model": as_dict(cfg)}, "identity": identity}
    about |= {"data": {"vocab_size": size, "eos_id": marks.eos, "sequence_length": CONTEXT}}
    write_run(out / "base", about, dict(model.named_parameters()), out / "tokenizer" / "tokenizer.json")  # type: ignore[arg-type]
    return out / "shards", out / "base"
