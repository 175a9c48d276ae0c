import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import transformers
from jinja2 import TemplateError
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from pipelines.shards.template import Template, markers, render_messages, render_prompt
from trainer import checkpoint
from trainer.checkpoint import Commit, Identity
from trainer.config import Experts, LinearScaling, Llama3Scaling, ModelConfig, as_dict
from trainer.convert import export_run, import_folder, main
from trainer.errors import UserError
from trainer.generate import load_run
from trainer.loss import IGNORED
from trainer.model import Decoder, init_weights
from trainer.parallel import start_processes

TINY = ModelConfig(vocab_size=40, width=32, layers=2, heads=4, kv_heads=2, feed_forward=48)
TOKENS = torch.randint(0, 40, (2, 30), generator=torch.Generator().manual_seed(0))
SPECIAL = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"]


def _write_run(run: Path, cfg: ModelConfig) -> Decoder:
    """A finished run of random weights, written as the trainer does it."""
    model = Decoder(cfg)
    init_weights(model, 0.2, 0)
    start_processes(torch.device("cpu"))
    try:
        commit = Commit(5, 5 * 64, Identity("c", "s", "p"), {}, 0.1)
        checkpoint.save(run / "checkpoints", checkpoint.weights(model), commit, keep=1)
    finally:
        dist.destroy_process_group()
    about = {"config": {"model": as_dict(cfg)}, "data": {"vocab_size": 40, "eos_id": 0, "sequence_length": 64}}
    (run / "config.json").write_text(json.dumps(about))
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(len(SPECIAL), 40)} | {w: i for i, w in enumerate(SPECIAL)}))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(run / "tokenizer.json"))
    return model


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        if isinstance(model, Decoder):
            logits: torch.Tensor = model.lm_head(model.hidden(TOKENS, None))
        else:
            logits = model(TOKENS).logits
    return logits


def _assert_same(ours: Decoder, theirs: Any) -> None:
    torch.testing.assert_close(_logits(ours), _logits(theirs), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    _write_run(path, TINY)
    return path


@pytest.fixture
def llama(tmp_path: Path) -> Callable[..., Path]:
    """A folder as transformers writes it, of a random Llama."""

    def write(**values: Any) -> Path:
        sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**sizes | {"num_key_value_heads": 2, "eos_token_id": 3} | values))
        model.save_pretrained(tmp_path / "llama")
        return tmp_path / "llama"

    return write


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rope_scaling": LinearScaling(4.0)},
        {"rope_scaling": Llama3Scaling(8.0, 1.0, 4.0, 16), "rope_base": 10_000.0},
        {"experts": Experts(5, 2)},
        {"experts": Experts(1, 1)},
    ],
    ids=["llama", "linear", "llama3", "mixtral", "one expert"],
)
def test_transformers_loads_an_export_with_equal_logits_and_it_comes_back(tmp_path: Path, change: dict[str, Any]) -> None:
    cfg = replace(TINY, **change)
    ours = _write_run(tmp_path / "run", cfg)
    export_run(tmp_path / "run", tmp_path / "out")
    theirs, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(theirs) is (MixtralForCausalLM if cfg.experts else LlamaForCausalLM)
    assert theirs.config.max_position_embeddings == 64
    _assert_same(ours, theirs)
    assert import_folder(tmp_path / "out", tmp_path / "back") == cfg
    back, _, eos_id = load_run(tmp_path / "back")
    assert eos_id == 0
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), back.parameters(), strict=True))


def test_large_models_come_in_several_files(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "out", file_bytes=10_000)
    files = sorted(tmp_path.glob("out/model-*.safetensors"))
    assert {path.stat().st_mode for path in tmp_path.glob("out/*.*")} == {(tmp_path / "out" / "config.json").stat().st_mode}
    assert len(files) > 5
    sizes = [sum(t.nbytes for t in load_file(path).values()) for path in files]
    assert max(sizes) <= 10_000
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(sizes) == 4 * TINY.parameters()
    ours, _, _ = load_run(run)
    _assert_same(ours, AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    import_folder(tmp_path / "out", tmp_path / "back", file_bytes=10_000)
    assert len(list(tmp_path.glob("back/checkpoints/step-*/*.safetensors"))) > 5
    _assert_same(load_run(tmp_path / "back")[0], AutoModelForCausalLM.from_pretrained(tmp_path / "out"))


def test_the_tokenizer_knows_its_special_tokens(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.pad_token_id) == ("<|endoftext|>", 0, 1)
    assert set(tokenizer.all_special_tokens) == set(SPECIAL)
    assert tokenizer.encode("<|user|>", add_special_tokens=False) == [3]
    assert len(tokenizer) == 40
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (run / "tokenizer.json").read_bytes()


def test_a_fine_tuned_run_comes_with_its_chat_template(run: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(run, tuned)
    values = json.loads((run / "config.json").read_text())
    values["data"]["template"] = asdict(swapped := Template(system="<|tool|>", tool="<|system|>"))
    (tuned / "config.json").write_text(json.dumps(values | {"task": {"kind": "sft"}}))
    export_run(tuned, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    marks = markers(swapped, tokenizer.convert_tokens_to_ids)
    talk = [("system", "w9"), ("user", "w10"), ("tool_call", "w11"), ("tool", "w12"), ("assistant", "w13"), ("user", "w14")]
    talk = [("tools", "w8"), *talk]
    messages = [{"role": role, "content": text} for role, text in talk]
    encode = partial(tokenizer.encode, add_special_tokens=False)
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert asked == render_prompt(talk, marks, encode).tolist()
    assert tokenizer.apply_chat_template(messages, return_dict=False) == render_messages(talk, marks, encode)[0].tolist()
    with pytest.raises(TemplateError, match="no role poet"):
        tokenizer.apply_chat_template([{"role": "poet", "content": "w9"}])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generation_config.eos_token_id == [marks.end, marks.eos]

    export_run(run, tmp_path / "base")
    assert AutoTokenizer.from_pretrained(tmp_path / "base").chat_template is None


def test_half_precision_is_rounded_once(run: Path, tmp_path: Path) -> None:
    assert main([str(run), str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
    ours, _, _ = load_run(run)
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("lm_head.weight"), ours.lm_head.weight.bfloat16())
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"rope_base": 10_000.0, "norm_eps": 1e-6}),
        ({"num_key_value_heads": None}, {"kv_heads": 4}),
        ({"tie_word_embeddings": True}, {}),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}}, {"rope_base": 500_000.0}),
        (
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 1e4,
                    "factor": 4.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 2.0,
                    "original_max_position_embeddings": 20,
                }
            },
            {"rope_scaling": Llama3Scaling(4.0, 1.0, 2.0, 20)},
        ),
    ],
    ids=["plain", "all heads", "tied", "base", "llama3"],
)
def test_a_llama_of_transformers_comes_in(
    llama: Callable[..., Path], tmp_path: Path, values: dict[str, Any], expected: dict[str, Any]
) -> None:
    folder = llama(**values)
    cfg = import_folder(folder, tmp_path / "run")
    assert {name: getattr(cfg, name) for name in expected} == expected
    shutil.copyfile(_some_tokenizer(tmp_path), tmp_path / "run" / "tokenizer.json")
    ours, _, eos_id = load_run(tmp_path / "run")
    assert eos_id == 3
    _assert_same(ours, LlamaForCausalLM.from_pretrained(folder))
    assert ours.lm_head.weight.data_ptr() != ours.model.embed_tokens.weight.data_ptr()


def _some_tokenizer(folder: Path) -> Path:
    Tokenizer(WordLevel({"a": 0})).save(str(folder / "some.json"))
    return folder / "some.json"


def test_a_mixtral_of_transformers_comes_in_and_learns_alike(tmp_path: Path) -> None:
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(0)
    theirs = MixtralForCausalLM(MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=3, router_aux_loss_coef=0.5))
    theirs.save_pretrained(tmp_path / "mixtral")
    assert import_folder(tmp_path / "mixtral", tmp_path / "run").experts == Experts(3, 2, 1.0)
    shutil.copyfile(_some_tokenizer(tmp_path), tmp_path / "run" / "tokenizer.json")
    ours, _, _ = load_run(tmp_path / "run")
    _assert_same(ours, theirs)
    theirs(TOKENS, labels=TOKENS, output_router_logits=True).loss.backward()
    targets = torch.full_like(TOKENS, IGNORED)
    targets[:, :-1] = TOKENS[:, 1:]
    ours(TOKENS, targets, None, 2 * 29).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    gate = "model.layers.0.mlp.gate.weight"
    torch.testing.assert_close(
        ours.get_parameter("model.layers.0.mlp.router.weight").grad, gradients[gate], atol=1e-6, rtol=1e-4
    )
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.down_proj"):
        found, expected = ours.get_parameter(name).grad, gradients[name.replace("mlp.down", "mlp.experts.down")]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


CONFIG_ERRORS = [
    ({"model_type": "gpt2"}, "model_type 'gpt2' is unknown here; known are llama and mixtral"),
    ({"attention_bias": True}, "attention_bias True is not supported"),
    ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported, only 'silu'"),
    ({"quantization_config": {"bits": 4}}, "quantization_config .* is not supported"),
    ({"head_dim": 64}, "head_dim 64 is not supported, only hidden_size / heads = 8"),
    ({"hidden_size": None}, "hidden_size is None, not a positive number"),
    ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type 'yarn' is not supported, only default, linear"),
    ({"rope_parameters": {"rope_type": "linear"}}, "rope_scaling of type 'linear' lacks 'factor'"),
    ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "has partial_rotary_factor, which is not supp"),
    ({"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 1}, "one expert chosen is weighted with 1"),
    ({"eos_token_id": 40}, "eos_token_id 40 is none of the 40 ids"),
    ({"num_hidden_layers": 3}, r"lacks model.layers.2.* and 6 more of the tensors"),
    ({"num_hidden_layers": 1}, r"has tensors that a model of its config.json does not: model.layers.1"),
    ({"intermediate_size": 50}, r"is \[48, 32\], by config.json it should be \[50, 32\]"),
]


@pytest.mark.parametrize(("change", "message"), CONFIG_ERRORS)
def test_what_we_do_not_have_is_named(llama: Callable[..., Path], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = llama()
    values = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=message):
        import_folder(folder, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _other_file(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    if name:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))


def _integers(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, "model.safetensors is not a whole safetensors file"),
        (lambda folder: _other_file(folder, ""), r"pickled weights \(\*.bin\) are not read"),
        (lambda folder: _other_file(folder, "model-2.safetensors"), "there is no .*model-2.safetensors"),
        (lambda folder: _other_file(folder, "../run/x.safetensors"), "has no weight_map from tensors to files beside it"),
        (_integers, "lm_head.weight is I8; weights must be F32, F16 or BF16"),
        (lambda folder: (folder / "config.json").write_text("[1"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), "there is no .*config.json; give the folder of a model"),
    ],
    ids=["cut", "pickle", "no such file", "path", "integers", "json", "no config"],
)
def test_a_damaged_folder_is_named(
    llama: Callable[..., Path], tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    folder = llama()
    spoil(folder)
    with pytest.raises(UserError, match=message):
        import_folder(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_is_overwritten(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert main([str(run), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'out'} exists already; choose another folder\n"
    assert main([str(tmp_path / "nothing"), str(tmp_path / "new")]) == 1
    assert "holds no finished checkpoint" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_prefix_model_is_no_llama(tmp_path: Path) -> None:
    _write_run(tmp_path / "run", replace(TINY, prefix_lm=True))
    with pytest.raises(UserError, match="prefix_lm has no place in transformers"):
        export_run(tmp_path / "run", tmp_path / "out")


def test_the_version_of_transformers_is_the_one_that_was_tested() -> None:
    pinned = (Path(__file__).parents[2] / "constraints.txt").read_text()
    assert f"transformers=={transformers.__version__}\n" in pinned
