"""Continue a text: sampling with temperature, top-k and top-p, or greedily.

python -m trainer.generate RUN --prompt "The water" [--tokens 64] [--temperature 0.8] [--top-p 0.95] [--top-k 0] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from trainer import checkpoint
from trainer.config import whole_model
from trainer.engine import Sampling, generate
from trainer.errors import UserError
from trainer.model import Decoder


def continue_text(
    model: Decoder, tokenizer: Tokenizer, text: str, count: int, stop: int, sampling: Sampling, device: torch.device
) -> str:
    """The continuation alone; the prompt begins a document."""
    prompt = tokenizer.encode(text, add_special_tokens=False).ids
    if not prompt or not model.cfg.document_mask:
        prompt = [stop, *prompt]  # trained without a document mask, a document is seen after the end of another
    answer = generate(model, [prompt], count, {stop}, sampling, device, vocab_size=tokenizer.get_vocab_size())[0][0]
    continuation: str = tokenizer.decode(answer.body)
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
        model = Decoder(whole_model(values, run))
    model.to_empty(device="cpu")
    checkpoint.load_weights(checkpoints[-1], model)
    return model, Tokenizer.from_file(str(tokenizer)), int(values["data"]["eos_id"])


def placed(model: Decoder) -> tuple[Decoder, torch.device]:
    """A model that is to answer, on the device that there is: a GPU, in bf16, or the CPU."""
    if not torch.cuda.is_available():
        return model, torch.device("cpu")
    return model.to("cuda", torch.bfloat16), torch.device("cuda")


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m trainer.generate", description="Continue a text with a trained model.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the --out of a training run")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--tokens", type=int, default=64, help="at most so many (64)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0.8; 0 takes the likeliest token")
    parser.add_argument("--top-p", type=float, default=0.95, help="0.95")
    parser.add_argument("--top-k", type=int, default=0, help="of the so many likeliest tokens; 0: of all")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="1.0; above it tokens seen before become rarer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--greedy", action="store_true", help="the same as --temperature 0")
    args = parser.parse_args(arguments)
    try:
        temperature = 0.0 if args.greedy else args.temperature
        sampling = Sampling(temperature, args.top_p, args.seed, args.top_k, args.repetition_penalty)
        model, tokenizer, stop = load_run(args.run)
        model, device = placed(model)
        text = continue_text(model, tokenizer, args.prompt, args.tokens, stop, sampling, device)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(args.prompt + text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
