"""Needles and questions: what is asked, where it stands in a batch, and what a model that knows the answer gets."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tokenizers import Tokenizer

from pipelines.shards import Shards
from trainer.config import ModelConfig, Needle, Run
from trainer.errors import UserError
from trainer.model import Decoder, init_weights
from trainer.parallel import start_processes
from trainer.probes import Choice, continuation, log_probabilities, needles, probe, questions

CPU = torch.device("cpu")
NEEDLE = Needle("w60 w61 {}", ("w7", "w9", "w11"), lengths=(0.5, 1.0), depths=(0.0, 0.5, 1.0))


@pytest.fixture(scope="module")
def tokenizer(shards: Path) -> Tokenizer:
    return Tokenizer.from_file(str(shards.parent / "tokenizer" / "tokenizer.json"))


@pytest.fixture(autouse=True)
def _one_process() -> Iterator[None]:
    start_processes(CPU)
    yield
    dist.destroy_process_group()


def _model(document_mask: bool) -> Decoder:
    model = Decoder(ModelConfig(64, 32, 2, 4, 2, 64, document_mask=document_mask))
    init_weights(model, 0.3, 0)
    return model


@pytest.mark.parametrize("document_mask", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_log_probabilities_are_those_of_each_text_alone(document_mask: bool, rows: int) -> None:
    model, generator = _model(document_mask), torch.Generator().manual_seed(0)
    sizes = [(9, 4), (17, 16), (5, 1), (30, 20), (3, 2), (2, 1), (12, 11)]
    texts = [(torch.randint(1, 64, (n,), generator=generator).tolist(), start) for n, start in sizes]
    choices = [Choice("t", i, tokens, start, 1, True) for i, (tokens, start) in enumerate(texts)]
    found = log_probabilities(model, choices, 32, rows, 0, CPU)
    for (tokens, start), value in zip(texts, found, strict=True):
        states = model.hidden(torch.tensor([tokens[:-1]]), torch.zeros(1, len(tokens) - 1, dtype=torch.int32))
        losses = F.cross_entropy(model.lm_head(states)[0], torch.tensor(tokens[1:]), reduction="none")
        assert value == pytest.approx(-float(losses[start - 1 :].sum().detach()), rel=1e-5)


def test_of_what_is_too_long_the_end_is_kept() -> None:
    model, tokens = _model(True), torch.randint(1, 64, (50,), generator=torch.Generator().manual_seed(1)).tolist()
    long, short = (Choice("t", 0, t, len(t) - 3, 1, True) for t in (tokens, tokens[-33:]))
    assert log_probabilities(model, [long], 32, 2, 0, CPU) == log_probabilities(model, [short], 32, 2, 0, CPU)


def test_the_likeliest_choice_per_byte_is_the_answer() -> None:
    model = _model(True)
    pair = [Choice("t", 0, [5, 6, token], 2, 1, False) for token in (7, 8)]
    scores = log_probabilities(model, pair, 8, 1, 0, CPU)
    best = scores.index(max(scores))
    for right in (0, 1):
        asked = [Choice("t", 0, c.tokens, 2, 1, i == right) for i, c in enumerate(pair)]
        assert probe(model, asked, 8, 1, 0, CPU) == {"t": float(right == best)}
        # the same likelihood over far more bytes makes a choice the better one
        larger = [Choice("t", 0, c.tokens, 2, 1 if i == best else 1000, c.right) for i, c in enumerate(asked)]
        assert probe(model, larger, 8, 1, 0, CPU) == {"t": float(right != best)}


def test_a_needle_stands_at_its_depth_and_is_asked_for_at_the_end(shards: Path, tokenizer: Tokenizer) -> None:
    found = list(needles(NEEDLE, tokenizer, Shards(shards), 64, []))
    assert [c.task for c in found[::3]] == [f"needle {n} at {d}" for n in (32, 64) for d in ("0%", "50%", "100%")]
    for number, (first, depth) in enumerate(zip(found[::3], (0.0, 0.5, 1.0) * 2, strict=True)):
        group = found[3 * number : 3 * number + 3]
        assert [c.right for c in group] == [value == NEEDLE.values[number % 3] for value in NEEDLE.values]
        assert len(first.tokens) == int(first.task.split()[1])
        values = [tokenizer.token_to_id(value) for value in NEEDLE.values]
        assert [c.tokens[c.start :] for c in group] == [[value] for value in values]
        assert all(c.tokens[c.start - 2 : c.start] == [60, 61] for c in group)
        room = len(first.tokens) - 6
        assert first.tokens[int(depth * room) :][:3] == [60, 61, values[number % 3]]
        assert 0 not in first.tokens  # one document
    with pytest.raises(UserError, match=r"no needle fits into 6 tokens; --set run.needle=null"):
        list(needles(NEEDLE, tokenizer, Shards(shards), 12, []))
    alone = Shards(shards)
    alone.manifest = replace(alone.manifest, files=tuple(f for f in alone.manifest.files if f.split == "train"))
    with pytest.raises(UserError, match="the shards hold no text out in which to hide a needle"):
        list(needles(NEEDLE, tokenizer, alone, 64, []))


@pytest.mark.parametrize("name", ["questions.jsonl", "questions.jsonl.gz"])
@pytest.mark.parametrize(("answers", "right"), [(("A", "B", "B"), 1), (("w4", "w5", "w9"), 1), ((0, 1, 0), 0)])
def test_questions_come_after_examples_of_their_bench(
    name: str, answers: tuple[object, ...], right: int, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    lines = [
        {"bench": "b", "question": f"w{i}", "choices": [f"w{i + 3}", f"w{i + 4}"], "answer": answer}
        for i, answer in zip((1, 1, 5), answers, strict=True)
    ]
    lines += [{"bench": "b", "question": "no choices", "choices": None, "answer": "3"}]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    found = list(questions(path, Run(questions=str(path), shots=2), tokenizer, [0]))
    shown = [" ".join(["Question: w1\nAnswer:", line["choices"][i]]) for line, i in zip(lines, (0, 1), strict=False)]
    context = "\n\n".join([*shown, "Question: w5\nAnswer:"])
    expected = [0, *tokenizer.encode(context).ids]
    assert [(c.tokens[: c.start], c.right) for c in found] == [(expected, right == 0), (expected, right == 1)]
    assert [tokenizer.decode(c.tokens[c.start :]) for c in found] == ["w8", "w9"]


def test_a_continuation_begins_where_both_encodings_part() -> None:
    class Merging:
        """Words of two letters are one token where they may be."""

        def encode(self, text: str, add_special_tokens: bool) -> object:
            ids = [hash(text[i : i + 2]) for i in range(0, len(text), 2)]
            return type("Encoding", (), {"ids": ids})()

    tokens, start = continuation(Merging(), [1], "abc", "de")  # type: ignore[arg-type]
    assert (tokens, start) == ([1, hash("ab"), hash("cd"), hash("e")], 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"question": "a"}\n', "has no line with question"), ("{\n", "cannot be read as JSON lines"), (None, "cannot be read")],
)
def test_files_without_questions_are_told(text: str | None, message: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "q.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        list(questions(path, Run(questions=str(path)), tokenizer, []))
