"""A small language of questions and answers as shards with roles, and a base: a tiny model of random weights."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from pipelines.shards import VERSION, Manifest, order_key, write_manifest, write_shard
from pipelines.shards.roles import ANSWER, ASSISTANT, BAD, GOOD, HEADER, LAST, NONE, TERMINATOR, UNRATED, USER, code
from trainer.config import ModelConfig, as_dict
from trainer.model import Decoder, init_weights
from trainer.post.start import write_run

from .arithmetic_base import write as write_sums

ROOT = Path(__file__).parents[3]
EOS, ASK, REPLY, END, WORDS, VOCAB = 0, 1, 2, 3, 4, 32
MODEL = ModelConfig(vocab_size=VOCAB, width=32, layers=2, heads=4, kv_heads=2, feed_forward=64)
CONTEXT = 48
RECIPE = """
from trainer.config import Cosine, LearningRate, Parallel, Run
from trainer.post.config import Post


def tiny():
    return Post(
        "tiny", LearningRate(3e-3, 2, Cosine(0.1)), batch=10, epochs=2, parallel=Parallel(micro_batch=3, loss_chunk=50),
        run=Run(log_every=5, evaluate_every=5, save_every_steps=4, log_samples=True, trackers=()),
    )
"""
Sequence_ = tuple[list[int], list[int]]  # token ids and codes


def sequence(turns: Sequence[tuple[Sequence[int], Sequence[int]]], grade: int) -> Sequence_:
    """A conversation of (question, answer) turns and eos; the last answer, or each to be learnt, has `grade`."""
    ids, codes = list[int](), list[int]()
    for number, (question, answer) in enumerate(turns):
        own = grade if grade == ANSWER or number == len(turns) - 1 else 0
        ids += [ASK, *question, END, REPLY, *answer, END]
        codes += [code(HEADER), *[code(USER)] * len(question), code(TERMINATOR)]
        codes += [code(HEADER, own), *[code(ASSISTANT, own)] * len(answer), code(TERMINATOR, own)]
    return [*ids, EOS], [*codes, NONE]


def document(*sequences: Sequence_) -> Sequence_:
    """Sequences in a row."""
    return [i for ids, _ in sequences for i in ids], [c for _, codes in sequences for c in codes]


def conversation(random: np.random.Generator) -> Sequence_:
    """One or two turns; an answer is the question backwards."""
    turns = []
    for _ in range(int(random.integers(1, 3))):
        question = random.integers(WORDS, VOCAB, int(random.integers(2, 6))).tolist()
        turns.append((question, question[::-1]))
    return sequence(turns, ANSWER)


def preference(random: np.random.Generator, grade: int = UNRATED) -> Sequence_:
    """An answer of even words is better than one of odd words."""
    question = random.integers(WORDS, VOCAB, 3).tolist()
    good, bad = (random.integers(WORDS // 2, VOCAB // 2, int(random.integers(3, 6))) * 2 for _ in range(2))
    return document(sequence([(question, good.tolist())], grade), sequence([(question, (bad + 1).tolist())], LAST))


def judgement(random: np.random.Generator) -> Sequence_:
    """The same answers, each by itself."""
    good = bool(random.integers(0, 2))
    answer = random.integers(WORDS // 2, VOCAB // 2, 4) * 2 + (not good)
    return sequence([([5, 6], answer.tolist())], GOOD if good else BAD)


def write_chat(out: Path, sources: dict[str, tuple[list[Sequence_], list[Sequence_]]]) -> Path:
    """OUT/shards of {source: (train, validation)} and OUT/tokenizer; returns the shard folder."""
    files = []
    for source, splits in sources.items():
        for split, documents in zip(("train", "validation"), splits, strict=True):
            ids = [
                hashlib.blake2b(np.array(d[0]).tobytes() + bytes([n % 256]), digest_size=16).digest()
                for n, d in enumerate(documents)
            ]
            rows = sorted(zip(ids, documents, strict=True), key=lambda row: (order_key(0, row[0]), row[0]))
            tokens, roles = [r[1][0] for r in rows], [r[1][1] for r in rows]
            if rows:
                files.append(write_shard(out / "shards", source, split, 0, [r[0] for r in rows], tokens, "uint16", roles))
    manifest = Manifest(VERSION, "uint16", VOCAB, EOS, write_tokenizer(out / "tokenizer"), "chat", "0" * 12, tuple(files), 0)
    write_manifest(out / "shards", manifest)
    return out / "shards"


def write_tokenizer(folder: Path) -> str:
    folder.mkdir(parents=True)
    names = ("<eos>", "<ask>", "<reply>", "<end>")
    words = {name: i for i, name in enumerate(names)} | {f"w{i}": i for i in range(len(names), VOCAB)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()


def random_model(seed: int = 0, std: float = 0.2) -> Decoder:
    model = Decoder(MODEL, 50)
    init_weights(model, std, seed)
    return model


@pytest.fixture(scope="session")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources `talk` (conversations), `pairs` and `rated` (preferences), `judged` (single answers)."""
    random = np.random.default_rng(0)

    def some(make: object, train: int, held_out: int) -> tuple[list[Sequence_], list[Sequence_]]:
        return [make(random) for _ in range(train)], [make(random) for _ in range(held_out)]  # type: ignore[operator]

    sources = {"talk": some(conversation, 70, 10), "pairs": some(preference, 60, 10), "judged": some(judgement, 60, 10)}
    return write_chat(tmp_path_factory.mktemp("chat"), sources)


@pytest.fixture(scope="session")
def base(chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of zero steps."""
    out = tmp_path_factory.mktemp("base") / "run"
    identity = {"config": "made", "shards": "none", "schedule": "none"}
    about = {"config": {"name": "base", "model": as_dict(MODEL)}, "identity": identity}
    about |= {"data": {"vocab_size": VOCAB, "eos_id": EOS, "sequence_length": CONTEXT}}
    write_run(out, about, dict(random_model().named_parameters()), chat.parent / "tokenizer" / "tokenizer.json")  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="session")
def post_recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "mine.py"
    path.write_text(RECIPE)
    return f"{path}:tiny"


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Shards of made arithmetic, and a base that knows about a third of the answers."""
    torch.set_num_threads(1)
    return write_sums(tmp_path_factory.mktemp("sums"), steps=60)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
