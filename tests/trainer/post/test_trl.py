"""The same loss as TRL's on the same batch, in fp32 to 1e-5: SFT, reward model, DPO and what is a line beside it.

TRL's own trainers compute theirs, from the texts of our shards, with the weights of our models exported for transformers.
"""

import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.shards import Shards
from trainer import huggingface
from trainer.data import count_targets, pack
from trainer.model import Decoder, Head
from trainer.post import losses
from trainer.post.dpo import pair_objective
from trainer.post.losses import Preference
from trainer.post.pairs import Loader, Pairs
from trainer.post.reward import margins
from trainer.post.reward import pair_objective as reward_objective
from trainer.post.start import held_out_rows
from trainer.task import next_token

from .conftest import ASK, CONTEXT, EOS, MODEL, random_model

pytest.importorskip("trl", reason="TRL is the oracle of this file alone: pip install trl==1.16.0")

pytestmark = pytest.mark.filterwarnings("ignore")  # of TRL and what it imports
LENGTH, DOCUMENTS = 2 * CONTEXT, 8
NAMES = {0: "<eos>", 1: "<ask>", 2: "<reply>", 3: "<end>"}


def theirs(model: Decoder, kind: str = "LlamaForCausalLM") -> Any:
    """The same weights in transformers."""
    import transformers

    values = huggingface.config_of(MODEL, LENGTH, 3, EOS, "float32")
    config = transformers.LlamaConfig(
        **{k: v for k, v in values.items() if k not in ("architectures", "model_type", "torch_dtype")}
    )
    config.num_labels = 1
    made = getattr(transformers, kind)(config)
    weights = dict(model.named_parameters())
    if kind == "LlamaForSequenceClassification":
        weights["score.weight"] = weights.pop("lm_head.weight")
    made.load_state_dict(weights)
    return made.eval()


def tokenizer(chat: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    file = str(chat.parent / "tokenizer" / "tokenizer.json")
    return PreTrainedTokenizerFast(tokenizer_file=file, eos_token="<end>", pad_token="<eos>")


def documents(chat: Path, source: str, count: int = DOCUMENTS) -> tuple[Any, list[list[list[int]]]]:
    """The first documents of a source, packed as ours, and as lists of the ids of their sequences without eos."""
    shards = Shards(chat)
    stream = shards.stream(source)
    bounds = stream.bounds(0)[: count + 1].tolist()
    rows = held_out_rows(shards, source, LENGTH, bounds[-1], "train")
    found = []
    for start, end in pairwise(bounds):
        ids = stream.slice(start, end - start)
        found.append([part.tolist() for part in np.split(ids, np.flatnonzero(ids == EOS) + 1) if len(part)])
    return rows, [[ids[:-1] for ids in sequences] for sequences in found]


def text(ids: list[int]) -> str:
    return " ".join(NAMES.get(i, f"w{i}") for i in ids)


def trainer_of(name: str, model: Any, chat: Path, rows: list[dict[str, Any]], out: Path, **options: Any) -> Any:
    import trl
    from datasets import Dataset

    args = {"output_dir": str(out), "use_cpu": True, "bf16": False, "report_to": [], "per_device_train_batch_size": len(rows)}
    config = getattr(trl, f"{name}Config")(**args, max_length=LENGTH, disable_tqdm=True, **options.pop("config", {}))
    kind = getattr(trl, f"{name}Trainer")
    return kind(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer(chat), **options)


def their_loss(trainer: Any, model: Any) -> float:
    with torch.no_grad():
        return float(trainer.compute_loss(model, next(iter(trainer.get_train_dataloader()))))


def test_sft(chat: Path, tmp_path: Path) -> None:
    rows, found = documents(chat, "talk")
    micro = pack(rows, len(rows), LENGTH, with_roles=True)
    model = random_model()
    ours = next_token(model, micro, sum(map(count_targets, rows)))
    examples = []
    for (ids,) in found:
        labels, answering = [], False
        for token in ids:  # what follows <reply>, up to and with <end>
            labels.append(token if answering else -100)
            answering = token == 2 or (answering and token != 3)
        examples.append({"input_ids": ids, "labels": labels})
    other = theirs(model)
    made = trainer_of("SFT", other, chat, examples, tmp_path, config={"dataset_kwargs": {"skip_prepare_dataset": True}})
    assert float(ours) == pytest.approx(their_loss(made, other), abs=1e-5)


def paired(chat: Path, reference: Decoder | None) -> tuple[Pairs, int, list[dict[str, str]]]:
    """Our packed batch, with the reference's log-probabilities, and the texts that TRL reads."""
    rows, found = documents(chat, "pairs")
    micro, count = Loader(lambda micro: micro).prepare("pairs", "train", rows, len(rows), LENGTH)
    if reference is not None:
        with torch.no_grad():
            micro = replace(micro, reference=-reference.losses(micro.inputs, micro.targets, micro.documents))
    texts = []
    for chosen, rejected in found:
        prompt = chosen[: chosen.index(2) + 1]
        assert rejected[: len(prompt)] == prompt
        assert prompt[0] == ASK
        texts.append(
            {
                "prompt": text(prompt),
                "chosen": " " + text(chosen[len(prompt) :]),
                "rejected": " " + text(rejected[len(prompt) :]),
            }
        )
    return micro, count, texts


@pytest.mark.parametrize(
    ("cfg", "loss_type", "weights"),
    [
        (Preference("dpo", beta=0.1, format_mask=False), ["sigmoid"], [1.0]),
        (Preference("dpo", beta=0.5, format_mask=False), ["sigmoid"], [1.0]),
        (Preference("ipo", beta=0.2, format_mask=False), ["ipo"], [1.0]),
    ],
)
def test_dpo_and_ipo(cfg: Preference, loss_type: list[str], weights: list[float], chat: Path, tmp_path: Path) -> None:
    policy, reference = random_model(0), random_model(1)
    micro, count, texts = paired(chat, reference)
    ours = pair_objective(cfg, policy, micro, count)[0]
    other = theirs(policy)
    config = {"beta": cfg.beta, "loss_type": loss_type, "loss_weights": weights}
    made = trainer_of("DPO", other, chat, texts, tmp_path, ref_model=theirs(reference), config=config)
    assert float(ours.detach()) == pytest.approx(their_loss(made, other), abs=1e-5)


def test_dpo_with_nll_where_one_pair_is_the_batch(chat: Path, tmp_path: Path) -> None:
    """TRL's NLL is a mean over the tokens of the batch, ours one of answers' means: the same for a single pair."""
    policy, reference = random_model(0), random_model(1)
    micro, _, texts = paired(chat, reference)
    for number in range(3):
        one = replace(micro, pairs=micro.pairs[number : number + 1])
        ours = pair_objective(Preference("dpo", nll=0.2, format_mask=False), policy, one, 1.0)[0]
        codes = micro.inputs.flatten()[int(micro.cu_seqlens[one.pairs[0, 0]]) : int(micro.cu_seqlens[one.pairs[0, 0] + 1])]
        mine = [t for t in texts if (t["prompt"] + t["chosen"]).split() == text(codes.tolist()[:-1]).split()]
        other = theirs(policy)
        config = {"beta": 0.1, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]}
        made = trainer_of("DPO", other, chat, mine, tmp_path, ref_model=theirs(reference), config=config)
        assert float(ours.detach()) == pytest.approx(their_loss(made, other), abs=1e-5)


@pytest.mark.parametrize("margin", [False, True])
def test_reward(margin: bool, chat: Path, tmp_path: Path) -> None:
    model = random_model()
    model.lm_head = Head(MODEL.width, 1, bias=False)
    micro, count, texts = paired(chat, None)
    table = torch.full_like(margins(SimpleNamespace(margins=())), 0.3 * margin)  # type: ignore[arg-type]
    ours = reward_objective(table, model, micro, count)[0]
    other = theirs(model, "LlamaForSequenceClassification")
    rows: list[dict[str, Any]] = [
        {k: t["prompt"] + t[k] for k in ("chosen", "rejected")} | ({"margin": 0.3} if margin else {}) for t in texts
    ]
    made = trainer_of("Reward", other, chat, rows, tmp_path)
    assert float(ours.detach()) == pytest.approx(their_loss(made, other), abs=1e-5)


def _numbers(seed: int) -> torch.Tensor:
    return -3 * torch.rand(6, generator=torch.Generator().manual_seed(seed)) - 0.05


def test_simpo_orpo_and_conservative_labels_are_those_of_trl() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.cpo import CPOTrainer
        from trl.experimental.orpo import ORPOTrainer
    chosen, rejected = _numbers(1), _numbers(2)
    here = SimpleNamespace(device="cpu")
    cpo = SimpleNamespace(alpha=0.0, beta=2.0, loss_type="simpo", simpo_gamma=0.5, label_smoothing=0.0, accelerator=here)
    torch.testing.assert_close(losses.simpo(chosen, rejected, 2.0, 0.5), CPOTrainer.cpo_loss(cpo, chosen, rejected)[0])
    cpo = SimpleNamespace(alpha=0.0, beta=0.3, loss_type="sigmoid", label_smoothing=0.1, accelerator=here)
    torch.testing.assert_close(losses.dpo(chosen, rejected, 0.3, 0.1), CPOTrainer.cpo_loss(cpo, chosen, rejected)[0])
    orpo = SimpleNamespace(beta=1.0, accelerator=here)
    torch.testing.assert_close(losses.odds_ratio(chosen, rejected), -ORPOTrainer.odds_ratio_loss(orpo, chosen, rejected)[0])
