"""Learning from preferences: DPO and its relatives on packed sequences, the reference's part computed once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.shards.roles import CONTENT, TARGET
from trainer.config import TrainConfig
from trainer.data import Data, Row
from trainer.model import Decoder
from trainer.post.adapters import Lora
from trainer.post.config import Post, reads, sources_of
from trainer.post.losses import NEEDS_REFERENCE, Answers, Preference, kto, nll, preference, sum_by_sequence
from trainer.post.pairs import Loader, Pairs, Reference, sequences
from trainer.post.sft import start
from trainer.post.start import Base, about, held_out, held_out_rows, shape_batch, with_adapter
from trainer.task import Task

# Of each pair: whether the better answer has the higher reward, by how much, the log-ratio of both answers to the reference
# (their log-probability where there is none), the mean loss of the better one's tokens, and pairs left out for each one kept.
METRICS = ("accuracy", "margin", "chosen", "rejected", "chosen_nll", "left_out")
JUDGED = ("good", "bad")  # mean log-ratio times the share of these answers


def dpo(cfg: Post, base: Base) -> Task:
    """The task: `cfg.preference` on the pairs of the shards, from the base's weights, which are the reference too."""
    kinds, judged = reads("dpo", cfg), cfg.preference.kind == "kto"
    eight_bit = isinstance(cfg.adapter, Lora) and cfg.adapter.eight_bit
    reference = Reference(base.sha256, "int8" if eight_bit else "whole") if cfg.preference.kind in NEEDS_REFERENCE else None
    loader = Loader(shape_batch(cfg.adapter), reference, cfg.alike, judged)
    objective, names = (judged_objective, JUDGED) if judged else (pair_objective, METRICS)

    def begin(run: TrainConfig, data: Data, model: Decoder, resumed: bool) -> None:
        start(cfg, base, model, resumed and reference is None)
        if reference is not None:
            length = max(phase.sequence_length for phase in data.schedule.config.phases)
            splits = [(s, split) for split in ("train", "validation") for s in sources_of(data.shards, kinds, split)]
            reference.prepare(data.shards, splits, model, partial(_all_rows, data, length), run.parallel.micro_batch, length)

    measure = partial(objective, cfg.preference)
    return Task(
        load=loader,
        objective=measure,
        metrics=names,
        validate=partial(held_out, kinds, loader.prepare, measure, names),
        change=partial(with_adapter, adapter=cfg.adapter),
        begin=begin,
        context=cfg.sequence_length or base.context,
        about=about("dpo", base, cfg.adapter, preference=cfg.preference, alike=cfg.alike),
    )


def _all_rows(data: Data, length: int, source: str, split: str) -> Sequence[Row]:
    return held_out_rows(data.shards, source, length, data.shards.stream(source, split).n_tokens, split)


def answers(model: Decoder, micro: Pairs, format_mask: bool) -> tuple[Answers, Answers]:
    """Of every sequence: with the tokens that are compared, and with all that the assistant writes, terminators too."""
    assert micro.roles is not None
    log_p_M = -model.losses(micro.inputs, micro.targets, micro.documents).flatten()
    reference_M = torch.zeros_like(log_p_M) if micro.reference is None else micro.reference.flatten()
    codes_M, (sequence_M, count) = micro.roles.flatten().long(), sequences(micro)

    def summed(table: Any) -> Answers:
        counts_M = torch.from_numpy(table).to(log_p_M.device)[codes_M].float()
        parts = (log_p_M * counts_M, reference_M * counts_M, counts_M)
        return Answers(*(sum_by_sequence(part_M, sequence_M, count) for part_M in parts))

    whole = summed(TARGET)
    return (summed(CONTENT) if format_mask else whole), whole


def pair_objective(cfg: Preference, model: Decoder, micro: Pairs, normalizer: float) -> Tensor:
    """The loss and METRICS of the pairs, summed and divided: (7,)."""
    compared, whole = answers(model, micro, cfg.format_mask)
    better_P, other_P = micro.pairs[:, 0], micro.pairs[:, 1]
    chosen, rejected, likelihood_P = compared.take(better_P), compared.take(other_P), nll(whole.take(better_P))
    loss_P = preference(cfg, chosen, rejected) + cfg.nll * likelihood_P
    margin_P = cfg.beta * (chosen.ratio - rejected.ratio)
    if cfg.kind in ("simpo", "orpo"):
        margin_P = cfg.beta * (nll(rejected) - nll(chosen))
    told = ((margin_P > 0).float(), margin_P, chosen.ratio, rejected.ratio, likelihood_P)
    left_out = torch.full_like(loss_P.detach().sum(), float(micro.left_out))
    return torch.stack([loss_P.sum(), *(values_P.detach().sum() for values_P in told), left_out]) / normalizer


def judged_objective(cfg: Preference, model: Decoder, micro: Pairs, normalizer: float) -> Tensor:
    """KTO's loss and JUDGED of the answers, summed and divided: (3,).

    The divergence from the reference is estimated by the answers at hand, not by mismatched ones as in the paper, which would
    be another pass.
    """
    compared, whole = answers(model, micro, cfg.format_mask)
    ratio_N, good_N = compared.take(micro.pairs[:, 0]).ratio, micro.pairs[:, 1] > 0
    baseline = F.relu(ratio_N.detach().sum() / max(len(ratio_N), 1))
    loss_N = kto(ratio_N, good_N, baseline, cfg.beta)
    if cfg.nll:
        loss_N = loss_N + cfg.nll * nll(whole.take(micro.pairs[:, 0])) * good_N
    told = (ratio_N * good_N, ratio_N * ~good_N)
    return torch.stack([loss_N.sum(), *(values_N.detach().sum() for values_N in told)]) / normalizer
