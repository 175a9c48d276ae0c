"""Generation for many prompts at once: a static key-value cache, rows refilled as they end, a prompt computed once.

Every tensor of a decoding step keeps its shape but for the extent of the attention, EXTENT doubled a few times; tokens are
chosen on the device, and looked at every few steps. The random numbers of an answer depend on seed, prompt and sample alone,
so batching changes no answer beyond what the rounding of a differently shaped product does.

Shapes: B rows of the cache, N prompts computed together, P tokens of the longest of them, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.attention import Cache
from trainer.config import ModelConfig
from trainer.errors import UserError
from trainer.model import Decoder

EXTENT = 128  # positions that attention looks over at first
PREFILL = 16_384  # tokens of prompts computed at once, filling included
CACHED, CACHED_ON_GPU = 1 << 28, 1 << 32  # numbers in all rows' caches, where nobody says how many rows: 1 GiB, 8 in bf16
ROWS = 16, 256  # at least and at most, then


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: the likeliest at `temperature` 0; of the `top_k` likeliest (0: all), the fewest that make `top_p`.

    Tokens of the prompt and the answer so far have their logits divided by `repetition_penalty` where positive and multiplied
    where negative (CTRL, arXiv 1909.05858, section 4.1).
    """

    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0
    top_k: int = 0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(f"temperature {self.temperature} must be 0 or more, top-p {self.top_p} above 0 and at most 1")
        if self.top_k < 0 or self.repetition_penalty <= 0:
            raise UserError(f"top-k {self.top_k} must be 0 or more, repetition penalty {self.repetition_penalty} above 0")


@dataclass(frozen=True)
class Completion:
    """An answer, a stop token its last where it `ended` by itself; log-probabilities are the model's own, at temperature 1."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool

    @property
    def body(self) -> tuple[int, ...]:
        """The tokens without the stop token."""
        return self.tokens[:-1] if self.ended else self.tokens


def choose(logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling, seen_BV: Tensor | None = None) -> Tensor:
    """A token id of each row (B,) from fp32 logits and a number in [0, 1): where the cumulative distribution passes it."""
    if seen_BV is not None:
        penalty = sampling.repetition_penalty
        logits_BV = torch.where(seen_BV, torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty), logits_BV)
    if sampling.temperature == 0:
        return logits_BV.argmax(-1)
    ids_BV: Tensor | None = None
    if sampling.top_k or sampling.top_p < 1:  # only then does the order matter
        logits_BV, ids_BV = logits_BV.topk(_most(logits_BV, sampling))
    probability_BV = (logits_BV / sampling.temperature).softmax(-1)
    mass_BV = probability_BV.cumsum(-1)
    kept_B1 = (mass_BV - probability_BV < sampling.top_p).sum(-1, keepdim=True)
    total_B1 = mass_BV.gather(1, kept_B1 - 1)
    # The middle of the interval that 24 bits stand for: neither 0 nor 1 may choose what has next to no probability.
    aim_B1 = ((uniform_B[:, None] + 2**-25) * total_B1).minimum(torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    index_B1 = torch.searchsorted(mass_BV, aim_B1, right=True)
    return (index_B1 if ids_BV is None else ids_BV.gather(1, index_B1))[:, 0]


def _most(logits_BV: Tensor, sampling: Sampling) -> int:
    """How many of the likeliest tokens to sort. On a CPU, where it takes the time, those that can be among the kept.

    Tokens below the mean probability of what `top_p` leaves out have less than that together: none of them is kept.
    """
    most = min(sampling.top_k or logits_BV.shape[1], logits_BV.shape[1])
    if logits_BV.is_cuda or most <= 64:
        return most
    probability_BV = (logits_BV / sampling.temperature).softmax(-1)
    return max(1, min(most, int((probability_BV >= (1 - sampling.top_p) / logits_BV.shape[1]).sum(-1).max())))


def uniforms(seed: int, prompt: Sequence[int], sample: int, count: int) -> np.ndarray:
    """The random numbers of one answer: float32 (count,) in [0, 1), by a counter keyed with seed, prompt and sample."""
    what = f"{seed} {sample} {','.join(map(str, prompt))}".encode()
    key = np.frombuffer(hashlib.blake2b(what, digest_size=16).digest(), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count, dtype=np.float32)


@torch.no_grad()
def generate(
    model: Decoder,
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
    """`samples` answers to each prompt, of at most `limit` tokens, ending with one of `stops`; ids from `vocab_size` on never.

    `rows` answers are under way at a time, by default as many as have `CACHED` numbers of keys and values. `look`: decoding
    steps between two looks at what came (by default 1 on a CPU, 8 on a GPU, which then need not wait). `compiled`: decoding
    steps as captured graphs, one for each extent of the attention.
    With a sharded model every rank calls it with the same prompts and gets the same answers. Raises UserError for an empty
    prompt.
    """
    if empty := [number for number, prompt in enumerate(prompts) if not prompt]:
        raise UserError(f"prompt {empty[0]} has no tokens; begin it with the end-of-document token")
    look = look or (8 if device.type == "cuda" else 1)
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))  # those of a length are computed together
    todo = deque((number, sample) for number in order for sample in range(samples))
    capacity = max(map(len, prompts), default=0) + limit + look
    rows = _rows(model.cfg, capacity, device) if rows is None else rows
    batch = _Batch(model, prompts, max(1, min(rows, len(todo))), capacity, sampling, device)
    batch.vocab_size, batch.compiled = vocab_size or model.cfg.vocab_size, compiled
    done: list[list[Completion]] = [[Completion((), (), False)] * samples for _ in prompts]
    while todo or any(batch.rows):
        batch.admit(todo, limit + look)
        batch.decode(look)
        for number, row in enumerate(batch.rows):
            if row is not None and (answer := _finished(row, limit, stops)):
                done[row.prompt][row.sample] = answer
                batch.rows[number] = None
    return done


@dataclass
class _Row:
    """An answer under way: which one, its random numbers, and what it has."""

    prompt: int
    sample: int
    uniforms: np.ndarray
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


def _finished(row: _Row, limit: int, stops: Collection[int]) -> Completion | None:
    """The answer, if it is complete: cut after its stop token, or at the limit."""
    end = next((i for i, token in enumerate(row.tokens[:limit]) if token in stops), None)
    if end is None and len(row.tokens) < limit:
        return None
    length = limit if end is None else end + 1
    return Completion(tuple(row.tokens[:length]), tuple(row.logprobs[:length]), end is not None)


class _Batch:
    """The rows of the cache, the answers that they hold, and the prompts computed last."""

    def __init__(
        self,
        model: Decoder,
        prompts: Sequence[Sequence[int]],
        rows: int,
        capacity: int,
        sampling: Sampling,
        device: torch.device,
    ) -> None:
        self._model, self._prompts, self._sampling, self._device = model, prompts, sampling, device
        self.vocab_size, self.compiled = model.cfg.vocab_size, False
        self.rows: list[_Row | None] = [None] * rows
        self._caches = [Cache(rows, _extent(capacity)) for _ in range(model.cfg.layers)]
        self._tokens_B = torch.zeros(rows, dtype=torch.long, device=device)
        self._one_B = torch.ones_like(self._tokens_B)
        self._seen_BV: Tensor | None = None
        if sampling.repetition_penalty != 1:
            self._seen_BV = torch.zeros(rows, model.cfg.vocab_size, dtype=torch.bool, device=device)
        self._computed: dict[int, int] = {}  # prompt -> its place in these two
        self._logits_NV, self._prompt_caches = torch.empty(0), list[Cache]()

    def admit(self, todo: deque[tuple[int, int]], most: int) -> None:
        """Fill the free rows: compute the next prompts if they are new, copy their keys, choose first tokens."""
        free = [number for number, row in enumerate(self.rows) if row is None]
        while free and todo:
            if todo[0][0] not in self._computed:
                self._compute(list(dict.fromkeys(prompt for prompt, _ in islice(todo, len(free)))))
            taken = list[int]()
            while todo and free[len(taken) :] and todo[0][0] in self._computed:
                prompt, sample = todo.popleft()
                drawn = uniforms(self._sampling.seed, self._prompts[prompt], sample, most)
                self.rows[free[len(taken)]] = _Row(prompt, sample, drawn)
                taken.append(prompt)
            self._begin(free[: len(taken)], taken)
            free = free[len(taken) :]

    def decode(self, steps: int) -> None:
        """Some steps of all rows, those at rest included, which write where nobody looks; then read what the others got."""
        busy = [(number, row) for number, row in enumerate(self.rows) if row is not None]
        held, uniforms_KB = np.zeros(len(self.rows), np.int64), np.zeros((steps, len(self.rows)), np.float32)
        for number, row in busy:
            begun = len(row.tokens)
            held[number] = len(self._prompts[row.prompt]) + begun - 1
            uniforms_KB[:, number] = row.uniforms[begun : begun + steps]
        held_B, drawn_KB = torch.from_numpy(held).to(self._device), torch.from_numpy(uniforms_KB).to(self._device)
        step = _compiled_step() if self.compiled else _step
        made = []
        for number in range(steps):
            extent = _extent(int(held.max()) + number + 1)
            logits_BV = step(self._model, self._tokens_B[:, None], self._one_B, self._caches, held_B + number, extent)
            made.append(self._choose(logits_BV, drawn_KB[number], slice(None)))
        tokens_KB, logprobs_KB = (torch.stack(parts).tolist() for parts in zip(*made, strict=True))
        for number, row in busy:
            row.tokens += [tokens_B[number] for tokens_B in tokens_KB]
            row.logprobs += [logprobs_B[number] for logprobs_B in logprobs_KB]

    def _compute(self, numbers: list[int]) -> None:
        """The keys of the first of these prompts, as many as are computed at once, and the logits after them."""
        longest = len(self._prompts[numbers[0]])
        numbers = numbers[: max(1, PREFILL // longest)]
        tokens_NP = np.zeros((len(numbers), longest), np.int64)
        for row, number in enumerate(numbers):
            tokens_NP[row, : len(self._prompts[number])] = self._prompts[number]
        counts_N = torch.tensor([len(self._prompts[number]) for number in numbers], device=self._device)
        self._prompt_caches = [Cache(len(numbers), longest) for _ in self._caches]
        tokens = torch.from_numpy(tokens_NP).to(self._device)
        self._logits_NV = self._model.next_logits(tokens, counts_N, self._prompt_caches)
        self._computed = {number: place for place, number in enumerate(numbers)}

    def _begin(self, numbers: list[int], prompts: list[int]) -> None:
        """Copy the keys of computed prompts into rows, and choose these rows' first tokens."""
        rows_R = torch.tensor(numbers, device=self._device)
        places_R = torch.tensor([self._computed[prompt] for prompt in prompts], device=self._device)
        for mine, theirs in zip(self._caches, self._prompt_caches, strict=True):
            assert theirs.keys is not None
            assert theirs.values is not None
            for to, of in zip(mine.like(theirs.keys), (theirs.keys, theirs.values), strict=True):
                to[rows_R, :, : of.shape[2]] = of[places_R]
                if self.compiled:
                    torch._dynamo.mark_static_address(to)  # a graph writes where it was captured
        if self._seen_BV is not None:
            for number, prompt in zip(numbers, prompts, strict=True):
                self._seen_BV[number] = False
                self._seen_BV[number, torch.tensor(self._prompts[prompt], device=self._device)] = True
        begun = [row for number in numbers if (row := self.rows[number]) is not None]
        drawn_R = torch.tensor([float(row.uniforms[0]) for row in begun], device=self._device)
        chosen = self._choose(self._logits_NV[places_R], drawn_R, rows_R)
        for row, token, logprob in zip(begun, *(part.tolist() for part in chosen), strict=True):
            row.tokens.append(token)
            row.logprobs.append(logprob)

    def _choose(self, logits_RV: Tensor, uniform_R: Tensor, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """The next tokens of some rows, and their log-probabilities (R,)."""
        logits_RV = logits_RV[:, : self.vocab_size]
        seen_RV = None if self._seen_BV is None else self._seen_BV[rows, : self.vocab_size]
        tokens_R = choose(logits_RV, uniform_R, self._sampling, seen_RV)
        self._tokens_B[rows] = tokens_R
        if self._seen_BV is not None:
            self._seen_BV[rows] = self._seen_BV[rows].scatter(1, tokens_R[:, None], True)
        return tokens_R, logits_RV.log_softmax(-1).gather(1, tokens_R[:, None])[:, 0]


def _rows(cfg: ModelConfig, capacity: int, device: torch.device) -> int:
    """By the sizes alone, not by the memory that happens to be free: so the same answers come anywhere."""
    of_a_row = 2 * cfg.layers * cfg.kv_heads * cfg.head_size * _extent(capacity)
    least, most = ROWS
    return max(least, min(most, (CACHED_ON_GPU if device.type == "cuda" else CACHED) // of_a_row))


def _extent(positions: int) -> int:
    """EXTENT doubled until it holds so many: few shapes, each of them a graph, for any length."""
    return EXTENT << max(0, (positions - 1) // EXTENT).bit_length()


def _step(model: Decoder, *arguments: Any) -> Tensor:
    return model.next_logits(*arguments)


@cache
def _compiled_step() -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(_step, dynamic=False, fullgraph=True, mode="reduce-overhead")
    return compiled
