import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from trainer import generate
from trainer.data import open_data
from trainer.evaluate import window_lengths
from trainer.log import read


def test_a_run_continues_a_prompt_from_its_checkpoint(whole_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [line for line in read(whole_run / "samples.jsonl") if line["lang"] == "en"]
    assert generate.main([str(whole_run), "--prompt", made[0]["prompt"], "--tokens", "6"]) == 0
    assert capsys.readouterr().out == made[0]["prompt"] + made[0]["continuation"] + "\n"


def test_a_folder_without_a_checkpoint_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main([str(tmp_path), "--prompt", "x"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path} holds no finished checkpoint; give the --out of a training run\n"


@pytest.mark.parametrize(
    ("tokens", "length", "bound", "expected"),
    [(101, 32, 1000, [32, 32, 32, 4]), (97, 32, 1000, [32, 32, 32]), (2, 32, 9, [1]), (101, 32, 70, [32, 32, 6])],
)
def test_windows_cover_the_held_out_tokens_once(tokens: int, length: int, bound: int, expected: list[int]) -> None:
    assert window_lengths(tokens, length, bound) == expected


def test_validation_loss_is_that_of_eager_cross_entropy_over_the_windows(whole_run: Path, shards: Path) -> None:
    model, _, _ = generate.load_run(whole_run)
    reported = [line["validation"] for line in read(whole_run / "metrics.jsonl") if "validation" in line][-1]
    for source, loss in reported.items():
        stream = open_data(shards).shards.stream(source, "validation")
        losses = []
        lengths = window_lengths(stream.n_tokens, 32, 300)
        for window, length in enumerate(lengths):
            tokens = torch.tensor(stream.slice(window * 32, length + 1).astype("int64"))[None]
            documents = torch.zeros(1, length, dtype=torch.long)
            documents[0, stream.document_starts(window * 32, length)] = 1
            with torch.no_grad():
                logits = model.lm_head(model.hidden(tokens[:, :-1], documents.cumsum(1)))[0]
            losses += F.cross_entropy(logits, tokens[0, 1:], reduction="none").tolist()
        assert math.fsum(losses) / sum(lengths) == pytest.approx(loss, rel=1e-5)
