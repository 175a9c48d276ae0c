"""vLLM in the place of trainer.engine, where it is installed: the same arguments, the same completions.

Nothing else imports it. It is for many answers of a model that stays as it is (rejection sampling, evaluation); the policy of
PPO and GRPO, whose weights change each step, is answered for by trainer.engine. Written against vLLM 0.33.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from trainer.convert import export_run
from trainer.engine import Completion, Sampling
from trainer.errors import UserError


def opened(run: Path, memory: float = 0.8) -> Any:
    """vLLM with a run's newest checkpoint; `memory`: share of the GPU it may take. Raises UserError where it is missing."""
    try:
        from vllm import LLM  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(f"vLLM is not installed ({error}); pip install vllm, or leave --vllm out") from error
    with tempfile.TemporaryDirectory() as folder:
        export_run(run, Path(folder) / "model", "bfloat16")
        return LLM(model=str(Path(folder) / "model"), skip_tokenizer_init=True, gpu_memory_utilization=memory, dtype="bfloat16")


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    limit: int,
    stops: Collection[int],
    sampling: Sampling,
    device: torch.device,
    samples: int = 1,
    vocab_size: int | None = None,
    rows: int | None = None,
    look: int | None = None,
    compiled: bool = False,
) -> list[list[Completion]]:
    """As trainer.engine.generate; device, rows, look and compiled are vLLM's own business. Its random numbers are its own."""
    from vllm import SamplingParams

    params = SamplingParams(
        n=samples, temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, seed=sampling.seed,
        repetition_penalty=sampling.repetition_penalty, max_tokens=limit, stop_token_ids=sorted(stops), ignore_eos=True,
        logprobs=0, detokenize=False, allowed_token_ids=list(range(vocab_size)) if vocab_size else None,
    )  # fmt: skip
    asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
    return [[completion(made, stops) for made in request.outputs] for request in model.generate(asked, params, use_tqdm=False)]


def completion(made: Any, stops: Collection[int]) -> Completion:
    """One of vLLM's outputs as ours."""
    tokens = tuple(made.token_ids)
    logprobs = tuple(float(place[token].logprob) for token, place in zip(tokens, made.logprobs, strict=True))
    return Completion(tokens, logprobs, bool(tokens) and tokens[-1] in stops)
