"""Adapters: what is trained, what it computes beside PEFT, and its ways out of a run and into one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import checkpoint
from trainer.convert import export_run
from trainer.errors import UserError
from trainer.generate import load_run
from trainer.log import read
from trainer.model import Decoder
from trainer.post import adapters, peft
from trainer.post.__main__ import main
from trainer.post.adapters import Adapter, Int8Linear, Lora, Prefix, VirtualTokens
from trainer.post.evaluate import answer_prompts, read_prompts, words_of
from trainer.post.reward import load_reward, scorer
from trainer.post.start import Base, about, open_base, write_run

from .conftest import MODEL, RECIPE

ADAPTERS = [Lora(rank=2, alpha=6.0), Lora(rank=3, targets=("q_proj", "down_proj"), eight_bit=True)]
ADAPTERS += [Prefix(tokens=3), VirtualTokens(tokens=3), VirtualTokens(tokens=2, hidden=8)]
PEFT_TOO = [ADAPTERS[0], *ADAPTERS[2:]]  # PEFT's 8-bit base is another library's


def name(adapter: Any) -> str:
    return f"{type(adapter).__name__}{'8' * getattr(adapter, 'eight_bit', False)}{'mlp' * bool(getattr(adapter, 'hidden', 0))}"


def trained(adapter: Adapter, base: Base, out: Path) -> Path:
    """An adapter run of random weights."""
    with torch.device("meta"):
        model = Decoder(base.model)
    adapters.inject(model, adapter)
    generator = torch.Generator().manual_seed(1)
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    tensors = {n: torch.randn(p.shape, generator=generator) * 0.3 for n, p in named.items()}
    values = json.loads((base.run / "config.json").read_text())
    write_run(out, values | {"task": about("sft", base, adapter)}, tensors, base.tokenizer)
    return out


def logits(model: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.lm_head(model.hidden(tokens, None))


TOKENS = torch.randint(4, 32, (2, 9), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def start(base: Path, tmp_path: Path) -> Base:
    return open_base(base, tmp_path)


@pytest.mark.parametrize(
    ("adapter", "rate"),
    list(zip(ADAPTERS, (0.03, 0.03, 0.3, 0.1, 0.03), strict=True)),
    ids=lambda x: None if isinstance(x, float) else name(x),
)
def test_a_loop_trains_the_adapter_alone_and_saves_nothing_else(
    adapter: Adapter, rate: float, chat: Path, base: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.replace("batch=10", f"batch=10, adapter={adapter!r}") + IMPORT)
    words = [
        "sft",
        f"{recipe}:tiny",
        "--data",
        str(chat),
        "--base",
        str(base),
        "--out",
        str(tmp_path / "run"),
        "--set",
        "epochs=5",
        "--set",
        f"learning_rate.peak={rate}",
    ]
    assert main(words) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-5:]) / 5 < losses[0] - 0.3
    size = sum(checkpoint.read_commit(checkpoint.committed(tmp_path / "run" / "checkpoints")[-1]).files.values())
    assert size < 3 * 4 * MODEL.parameters()  # the moments are beside it
    held = [line["validation"]["talk"] for line in lines if "validation" in line][-1]
    model = peft.load_adapted(tmp_path / "run", open_base(base, tmp_path))
    assert all(torch.isfinite(p).all() for p in model.parameters() if p.is_floating_point())
    assert held < losses[0]


IMPORT = "\nfrom trainer.post.adapters import Lora, Prefix, VirtualTokens\n"


@pytest.mark.parametrize("adapter", [ADAPTERS[1], ADAPTERS[3]], ids=name)
def test_stopped_in_the_middle_an_adapter_goes_on_with_the_same_numbers(
    adapter: Adapter, chat: Path, base: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.replace("batch=10", f"batch=10, adapter={adapter!r}") + IMPORT)
    words = ["dpo", f"{recipe}:tiny", "--data", str(chat), "--base", str(base), "--set", "epochs=1", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    assert main([*words, str(tmp_path / "run"), "--steps", "3"]) == 0
    assert main([*words, str(tmp_path / "run")]) == 0
    kept = ("loss", "margin", "chosen", "rejected", "validation")
    whole, run = (
        [[line.get(k) for k in kept] for line in read(tmp_path / out / "metrics.jsonl") if "plan" not in line]
        for out in ("whole", "run")
    )
    assert [line for line in run if line[0]] == [line for line in whole if line[0]]
    assert run[-1] == whole[-1]


def test_lora_on_a_reward_model_merges_into_one_that_scores(chat: Path, base: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.replace("batch=10", "batch=10, adapter=Lora(rank=4)") + IMPORT)
    words = ["reward", f"{recipe}:tiny", "--data", str(chat), "--base", str(base), "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert main(["merge", str(tmp_path / "run"), "--base", str(base), "--out", str(tmp_path / "merged")]) == 0
    ours, merged = peft.load_adapted(tmp_path / "run", open_base(base, tmp_path)), load_reward(tmp_path / "merged")
    answers = [[1, 5, 6, 3, 2, 8, 10, 3], [1, 5, 6, 3, 2, 9, 11, 13, 3]]
    torch.testing.assert_close(scorer(ours)(answers), scorer(merged)(answers), atol=1e-5, rtol=1e-5)


def test_lora_starts_as_its_base_and_eight_bits_are_close(start: Base) -> None:
    plain = logits(load_run(start.run)[0], TOKENS)
    for adapter, bound in ((Lora(), 1e-6), (Lora(eight_bit=True), 0.05)):
        with torch.device("meta"):
            model = Decoder(MODEL)
        adapters.inject(model, adapter)
        model.to_empty(device="cpu")
        adapters.begin(model, 0)
        start.fill(model)
        error = (logits(model, TOKENS) - plain).abs().max() / plain.abs().max()
        assert error < bound
        assert any(isinstance(m, Int8Linear) for m in model.modules()) == adapter.eight_bit


def test_the_gradient_through_eight_bits_is_that_of_the_rounded_weights() -> None:
    layer = Int8Linear(torch.nn.Linear(6, 5, bias=False)).to_empty(device="cpu")
    layer.fill(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)))
    x, y = (torch.ones(2, 6, requires_grad=True) for _ in range(2))
    layer(x).square().sum().backward()
    (y @ (layer.weight * layer.row_scale).t()).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("adapter", [ADAPTERS[2], ADAPTERS[3]], ids=name)
def test_what_comes_before_a_document_is_seen_by_each_one_of_a_packed_row(
    adapter: Adapter, start: Base, tmp_path: Path
) -> None:
    model = peft.load_adapted(trained(adapter, start, tmp_path / "run"), start)
    documents = torch.tensor([[1] * 4 + [2] * 5])
    if isinstance(adapter, Prefix):
        packed = model.hidden(TOKENS[:1], documents)
        apart = [model.hidden(TOKENS[:1, part], torch.ones_like(TOKENS[:1, part])) for part in (slice(4), slice(4, 9))]
        torch.testing.assert_close(packed, torch.cat(apart, 1), atol=1e-5, rtol=1e-5)
        return
    from trainer.data import MicroBatch

    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]], dtype=torch.int32)
    micro = MicroBatch(TOKENS[:1].int(), TOKENS[:1].int(), positions, torch.tensor([0, 4, 9], dtype=torch.int32), 5)
    wide = adapters.before_documents(3)(micro)
    assert wide.inputs[0, :15].tolist() == [-1, -2, -3, *TOKENS[0, :4].tolist(), -1, -2, -3, *TOKENS[0, 4:].tolist()]
    assert wide.positions[0, :17].tolist() == [*range(7), *range(8), 0, 1]
    assert wide.cu_seqlens.tolist() == [0, 7, 15, 128]
    assert (wide.targets[0, :15] >= 0).tolist() == [False] * 3 + [True] * 4 + [False] * 3 + [True] * 5
    assert (wide.targets[0, 15:] == -100).all()


@pytest.fixture(scope="module")
def theirs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Any]:
    pytest.importorskip("peft", reason="PEFT is the oracle of these tests alone: pip install peft")
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("hf") / "model"
    export_run(base, folder)
    return lambda: AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adapter", PEFT_TOO, ids=name)
def test_peft_computes_the_same_logits_and_what_it_saves_comes_back(
    adapter: Adapter, start: Base, theirs: Callable[[], Any], tmp_path: Path
) -> None:
    from peft import PeftModel

    run = trained(adapter, start, tmp_path / "run")
    peft.export(run, start, tmp_path / "peft")
    other = PeftModel.from_pretrained(theirs(), tmp_path / "peft")
    with torch.no_grad():
        expected = other(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)).logits[:, -9:]
    model, tokens = peft.load_adapted(run, start), TOKENS
    if isinstance(adapter, VirtualTokens):
        tokens = torch.cat((-1 - torch.arange(adapter.tokens).expand(2, -1), TOKENS), 1)
    torch.testing.assert_close(logits(model, tokens)[:, -9:], expected, atol=1e-5, rtol=1e-5)
    other.save_pretrained(tmp_path / "saved")
    peft.import_folder(tmp_path / "saved", start, tmp_path / "back")
    back = peft.load_adapted(tmp_path / "back", start)
    torch.testing.assert_close(logits(back, tokens)[:, -9:], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=name)
def test_it_answers_beside_its_base(adapter: Adapter, sums: tuple[Path, Path], tmp_path: Path) -> None:
    start = open_base(sums[1], tmp_path)
    run = trained(adapter, start, tmp_path / "run")
    (tmp_path / "asked.jsonl").write_text(
        "".join(f'{{"question": "What is {a} + 1?", "answer": "{a + 1}"}}\n' for a in range(5))
    )
    prompts, _ = read_prompts(tmp_path / "asked.jsonl", words_of(run))
    answers = answer_prompts(run, prompts, 4, base=start)
    assert [answer.prompt for answer in answers] == prompts
    model = peft.load_adapted(run, start)
    for answer in answers:
        said = answer.completion.tokens
        ids = [*adapters.virtual_tokens(model), *answer.prompt.tokens, *said]
        log_p = logits(model, torch.tensor([ids]))[0, -1 - len(said) : -1].log_softmax(-1)
        assert log_p.argmax(-1).tolist() == list(said)
        assert log_p.amax(-1).tolist() == pytest.approx(answer.completion.logprobs, abs=1e-4)
    words = [str(run), "--base", str(start.run), "--prompts", str(tmp_path / "asked.jsonl"), "--limit", "4"]
    assert main(["evaluate", *words, "--before", str(start.run), "--out", str(tmp_path / "compared")]) == 0
    assert main(["reject", *words, "--reward", "number", "--samples", "2", "--out", str(tmp_path / "best.jsonl")]) == 0


@pytest.mark.parametrize("adapter", ADAPTERS[:2], ids=name)
def test_merged_it_is_a_run_as_any_other(adapter: Adapter, start: Base, tmp_path: Path) -> None:
    run = trained(adapter, start, tmp_path / "run")
    assert main(["merge", str(run), "--base", str(start.run), "--out", str(tmp_path / "merged")]) == 0
    ours, merged = logits(peft.load_adapted(run, start), TOKENS), logits(load_run(tmp_path / "merged")[0], TOKENS)
    error = (merged - ours).abs().max() / ours.abs().max()
    assert error < (0.05 if adapter.eight_bit else 1e-5)  # type: ignore[union-attr]


def test_what_cannot_be_is_said_in_one_line(
    start: Base, sums: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*words: object) -> str:
        assert main([str(word) for word in words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    prefix = trained(Prefix(2), start, tmp_path / "prefix")
    lora = trained(Lora(2), start, tmp_path / "lora")
    base, out = ("--base", start.run), ("--out", tmp_path / "out")
    assert "cannot be merged" in error("merge", prefix, *base, *out)
    assert "holds no trained adapter" in error("merge", start.run, *base, *out)
    assert "is an adapter alone" in error("merge", lora, "--base", lora, *out)
    (tmp_path / "asked.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    shutil.copyfile(sums[1] / "tokenizer.json", prefix / "tokenizer.json")
    asked = "evaluate", prefix, "--prompts", tmp_path / "asked.jsonl"
    assert "is an adapter alone; `trainer.post evaluate` and `reject` take its --base" in error(*asked, *out)
    assert "vLLM takes whole weights, and" in error(*asked, *base, "--vllm", *out)
    with pytest.raises(UserError, match="is an adapter alone"):
        export_run(lora, tmp_path / "hf")
    peft.export(lora, start, tmp_path / "peft")
    values = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    for change, expected in (
        ({"use_dora": True}, "use_dora True"),
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"r": 3}, "is not as its config"),
    ):
        changed = tmp_path / f"peft-{next(iter(change))}"
        shutil.copytree(tmp_path / "peft", changed)
        (changed / "adapter_config.json").write_text(json.dumps(values | change))
        assert expected in error("import", changed, *base, *out)
