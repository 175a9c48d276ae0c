"""Continue a text: sampling with temperature and top-p, or greedily, over a key-value cache.

python -m trainer.generate RUN --prompt "The water" [--tokens 64] [--temperature 0.8] [--top-p 0.95] [--seed 0] [--greedy]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from trainer import checkpoint
from trainer.attention import Cache
from trainer.config import model_from_dict
from trainer.errors import UserError
from trainer.model import Decoder


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. `temperature` 0 takes the likeliest; `top_p` keeps the smallest set of that probability."""

    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(f"temperature {self.temperature} must be 0 or more, top-p {self.top_p} above 0 and at most 1")


def choose(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One token id from fp32 logits; the generator lives on the CPU, so a seed means the same on every device."""
    logits_V = logits_V.float().cpu()
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    probabilities_V, ids_V = (logits_V / sampling.temperature).softmax(-1).sort(descending=True, stable=True)
    before_V = probabilities_V.cumsum(-1) - probabilities_V
    probabilities_V = probabilities_V.where(before_V < sampling.top_p, 0.0)
    return int(ids_V[torch.multinomial(probabilities_V, 1, generator=generator)])


@torch.no_grad()
def generate(
    model: Decoder, prompt: list[int], count: int, stop: int, vocab_size: int, sampling: Sampling, device: torch.device
) -> list[int]:
    """Up to `count` token ids after `prompt`, ending before `stop`; ids from `vocab_size` on are never chosen.

    With a sharded model every rank calls it and gets the same ids.
    """
    caches = [Cache(len(prompt) + count) for _ in range(model.cfg.layers)]
    generator = torch.Generator().manual_seed(sampling.seed)
    tokens, out = prompt, list[int]()
    while len(out) < count:
        logits_V = model.next_logits(torch.tensor([tokens], device=device), caches)[0, :vocab_size]
        token = choose(logits_V, sampling, generator)
        if token == stop:
            break
        out.append(token)
        tokens = [token]
    return out


def continue_text(
    model: Decoder, tokenizer: Tokenizer, text: str, count: int, stop: int, sampling: Sampling, device: torch.device
) -> str:
    """The continuation alone; the prompt begins a document."""
    prompt = tokenizer.encode(text, add_special_tokens=False).ids
    if not prompt or not model.cfg.document_mask:
        prompt = [stop, *prompt]  # trained without a document mask, a document is seen after the end of another
    ids = generate(model, prompt, count, stop, tokenizer.get_vocab_size(), sampling, device)
    continuation: str = tokenizer.decode(ids)
    return continuation


def load_run(run: Path) -> tuple[Decoder, Tokenizer, int]:
    """Model, tokenizer and end-of-document id of a run's newest checkpoint, on the CPU. Raises UserError."""
    checkpoints = checkpoint.committed(run / "checkpoints")
    config, tokenizer = run / "config.json", run / "tokenizer.json"
    if not checkpoints or not config.is_file():
        raise UserError(f"{run} holds no finished checkpoint; give the --out of a training run")
    if not tokenizer.is_file():
        raise UserError(f"{tokenizer} is missing; copy the tokenizer.json that made the shards there")
    values = json.loads(config.read_text())
    with torch.device("meta"):
        model = Decoder(model_from_dict(values["config"]["model"]))
    model.to_empty(device="cpu")
    checkpoint.load_weights(checkpoints[-1], model)
    return model, Tokenizer.from_file(str(tokenizer)), int(values["data"]["eos_id"])


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m trainer.generate", description="Continue a text with a trained model.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the --out of a training run")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--tokens", type=int, default=64, help="at most so many (64)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0.8; 0 takes the likeliest token")
    parser.add_argument("--top-p", type=float, default=0.95, help="0.95")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--greedy", action="store_true", help="the same as --temperature 0")
    args = parser.parse_args(arguments)
    try:
        sampling = Sampling(0.0 if args.greedy else args.temperature, args.top_p, args.seed)
        model, tokenizer, stop = load_run(args.run)
        text = continue_text(model, tokenizer, args.prompt, args.tokens, stop, sampling, torch.device("cpu"))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(args.prompt + text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
