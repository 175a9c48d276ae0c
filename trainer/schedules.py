"""The learning rate as a pure function of tokens seen; nothing is counted, so nothing has to be saved or restored.

Spans are in tokens. The shape runs over the tokens before the annealing phase (all of them where there is none), the warm-up
being part of it: DeepSeek's 80 % is 80 % of all training tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.schedule import Schedule
from trainer.config import Cosine, LearningRate, MultiStep
from trainer.errors import UserError


@dataclass(frozen=True)
class Curve:
    """A learning rate with its spans fixed in tokens: `curve(tokens_seen) -> rate`."""

    cfg: LearningRate
    warmup: int  # tokens of linear warm-up
    main: int  # tokens before the annealing phase
    total: int

    def __call__(self, tokens: float) -> float:
        """The rate after `tokens` tokens."""
        rate = self.shape(min(tokens, self.main))
        if tokens > self.main:
            rate *= max(0.0, (self.total - tokens) / (self.total - self.main))
        return self.cfg.peak * rate

    def shape(self, tokens: float) -> float:
        """Warm-up and shape as a fraction of the peak, without annealing."""
        if tokens < self.warmup:
            return tokens / self.warmup
        shape, share = self.cfg.shape, tokens / self.main
        if isinstance(shape, MultiStep):
            return next((fraction for start, fraction in reversed(shape.drops) if share >= start), 1.0)
        if isinstance(shape, Cosine):
            done = (tokens - self.warmup) / max(1, self.main - self.warmup)
            return shape.final + (1 - shape.final) * 0.5 * (1 + math.cos(math.pi * done))
        left = min(1.0, (1 - share) / shape.decay)
        return shape.final + (1 - shape.final) * left

    def of_step(self, tokens_before: int, tokens: int) -> float:
        """The rate of a step: taken at its middle, so that neither the first nor the last step has rate zero."""
        return self(tokens_before + tokens / 2)


def curve(cfg: LearningRate, schedule: Schedule) -> Curve:
    """Fix the spans of `cfg` by the compiled schedule. Raises UserError where the annealing phase is not its last."""
    total = schedule.total_tokens
    warmup = schedule.step_plan(cfg.warmup_steps).tokens_before if cfg.warmup_steps < schedule.total_steps else total
    if cfg.anneal_phase is None:
        return Curve(cfg, warmup, total, total)
    phases = schedule.config.phases
    names = [phase.name for phase in phases]
    if cfg.anneal_phase != names[-1] or len(names) < 2:
        raise UserError(
            f"learning_rate.anneal_phase is {cfg.anneal_phase!r}, but the schedule's phases are {', '.join(names)}; "
            "it must be the last of several, or --set learning_rate.anneal_phase=null"
        )
    last = phases[-1]
    return Curve(cfg, warmup, total - last.tokens // last.batch_tokens * last.batch_tokens, total)
