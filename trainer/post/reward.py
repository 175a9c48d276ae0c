"""A reward model: the base with a scalar head on the last token of an answer, from pairs of all ratings, edited answers too."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.shards.roles import BETTER, EDITED, MARGINALLY, SIGNIFICANTLY, SLIGHTLY, UNRATED
from trainer import checkpoint
from trainer.config import TrainConfig, model_from_dict
from trainer.data import Data
from trainer.errors import UserError
from trainer.model import Decoder, Head, init_weights
from trainer.post import adapters
from trainer.post.config import Post, sources_of
from trainer.post.losses import reward_pairs
from trainer.post.pairs import Loader, Pairs, sequences, targets_of
from trainer.post.start import Base, about, held_out_sums, shape_batch, with_adapter
from trainer.task import Task

METRICS = ("accuracy", "margin")
RATINGS = {
    "unrated": UNRATED,
    "marginally": MARGINALLY,
    "slightly": SLIGHTLY,
    "better": BETTER,
    "significantly": SIGNIFICANTLY,
    "edited": EDITED,
}
BINS = 5  # of the probability that the better answer is the better one, from 0.5 to 1
HEAD = "lm_head.weight"


def reward(cfg: Post, base: Base) -> Task:
    """The task: rewards of better answers above those of others."""
    loader = Loader(shape_batch(cfg.adapter))

    def change(model: Decoder) -> None:
        with_adapter(model, cfg.adapter)
        scalar_head(model)

    def begin(_: TrainConfig, data: Data, model: Decoder, resumed: bool) -> None:
        if cfg.adapter is not None:
            adapters.begin(model, cfg.seed)
        if cfg.adapter is not None or not resumed:
            init_weights(model.lm_head, (model.cfg.width + 1) ** -0.5, cfg.seed)
            base.fill(model, skip=HEAD.__eq__)

    measure = partial(pair_objective, margins(cfg))
    return Task(
        load=loader,
        objective=measure,
        metrics=METRICS,
        validate=partial(by_rating, loader),
        change=change,
        begin=begin,
        context=cfg.sequence_length or base.context,
        about=about("reward", base, cfg.adapter, margins=cfg.margins),
    )


def scalar_head(model: Decoder) -> None:
    """One output in the place of a vocabulary, on the meta device."""
    model.lm_head = Head(model.cfg.width, 1, bias=False, device="meta")


def margins(cfg: Post) -> Tensor:
    """The margin of each grade (11,): none, or `cfg.margins` by rating; an edited answer's is that of the highest."""
    found = torch.zeros(EDITED + 4)
    if cfg.margins:
        found[MARGINALLY : SIGNIFICANTLY + 1] = torch.tensor(cfg.margins)
        found[EDITED] = cfg.margins[-1]
    return found


def ends(micro: Pairs) -> Tensor:
    """Where the answer of each sequence ends, in the flattened rows (S,): at its terminator, which is the last target.

    The last token of a sequence without an answer.
    """
    sequence_M = sequences(micro)[0]
    place_M = torch.arange(len(sequence_M), device=sequence_M.device)
    last_S = micro.cu_seqlens[1:].long() - 1
    found_S = torch.full_like(last_S, -1).scatter_reduce_(0, sequence_M, torch.where(targets_of(micro), place_M, -1), "amax")
    return torch.where(found_S < 0, last_S, torch.minimum(found_S + 1, last_S))


def pair_rewards(model: Decoder, micro: Pairs) -> tuple[Tensor, Tensor]:
    """Rewards of the better and of the other answer of each pair, fp32 (P,)."""
    reward_S = model.outputs_at(micro.inputs, micro.documents, ends(micro))[:, 0]
    return reward_S[micro.pairs[:, 0]], reward_S[micro.pairs[:, 1]]


def pair_objective(margins: Tensor, model: Decoder, micro: Pairs, normalizer: float) -> Tensor:
    """The loss and METRICS of the pairs, summed and divided: (3,)."""
    better_P, other_P = pair_rewards(model, micro)
    loss_P = reward_pairs(better_P, other_P, margins.to(better_P.device)[micro.pairs[:, 2]])
    told = ((better_P > other_P).float(), better_P - other_P)
    return torch.stack([loss_P.sum(), *(values_P.detach().sum() for values_P in told)]) / normalizer


def rating_sums(model: Decoder, micro: Pairs, normalizer: float) -> Tensor:
    """Loss and METRICS, then pairs and right ones of each rating, then pairs, right ones and confidence of each bin."""
    better_P, other_P = pair_rewards(model, micro)
    told = [reward_pairs(better_P, other_P), (better_P > other_P).float(), better_P - other_P]
    right_P = told[1]
    confidence_P = torch.sigmoid((better_P - other_P).abs())
    bin_P = ((confidence_P - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    sums = [values_P.sum() for values_P in told]
    for grade in RATINGS.values():
        of_grade_P = (micro.pairs[:, 2] == grade).float()
        sums += [of_grade_P.sum(), (of_grade_P * right_P).sum()]
    for number in range(BINS):
        of_bin_P = (bin_P == number).float()
        sums += [of_bin_P.sum(), (of_bin_P * right_P).sum(), (of_bin_P * confidence_P).sum()]
    return torch.stack(sums) / normalizer


def by_rating(
    loader: Loader, cfg: TrainConfig, data: Data, model: Decoder, length: int, device: torch.device
) -> dict[str, float]:
    """Held-out loss, accuracy and margin a source, accuracy a rating, and how calibrated it is. Called by every rank.

    `calibration/0.6-0.7 confidence` and `... accuracy`: of the pairs of which the model is so sure, how sure it is, and how
    often it is right.
    """
    size = 1 + len(METRICS) + 2 * len(RATINGS) + 3 * BINS
    result, total = dict[str, float](), [0.0] * size
    for source in sources_of(data.shards, ("preferences",), "validation"):
        sums, count = held_out_sums(source, loader.prepare, rating_sums, size, cfg, data, model, length, device)
        if count:
            result[source] = sums[0] / count
            result |= {f"{source}/{name}": value / count for name, value in zip(METRICS, sums[1:], strict=False)}
        total = [a + b for a, b in zip(total, sums, strict=True)]
    rest = total[1 + len(METRICS) :]
    for number, rating in enumerate(RATINGS):
        pairs, right = rest[2 * number : 2 * number + 2]
        result |= {f"accuracy/{rating}": right / pairs} if pairs else {}
    for number in range(BINS):
        pairs, right, confidence = rest[2 * len(RATINGS) + 3 * number :][:3]
        name = f"calibration/{0.5 + number / (2 * BINS):.1f}-{0.5 + (number + 1) / (2 * BINS):.1f}"
        result |= {f"{name} confidence": confidence / pairs, f"{name} accuracy": right / pairs} if pairs else {}
    return result


def load_reward(run: Path) -> Decoder:
    """The reward model of a run's newest checkpoint, on the CPU. Raises UserError for a run of another kind."""
    found = checkpoint.committed(run / "checkpoints")
    values = json.loads((run / "config.json").read_text()) if found else {}
    task = values.get("task", {})
    if task.get("kind") != "reward" or task.get("adapter"):
        raise UserError(f"{run} holds no whole reward model; give the --out of python -m trainer.post reward")
    with torch.device("meta"):
        model = Decoder(model_from_dict(values["config"]["model"]))
    scalar_head(model)
    model.to_empty(device="cpu")
    checkpoint.load_weights(found[-1], model)
    return model.requires_grad_(False)


def scorer(model: Decoder, rows: int = 16) -> Callable[[Sequence[Sequence[int]]], Tensor]:
    """token ids of conversations, each up to the terminator of the answer that is judged -> rewards, fp32 (N,), on the CPU."""

    @torch.no_grad()
    def score(conversations: Sequence[Sequence[int]]) -> Tensor:
        device, found = model.lm_head.weight.device, list[Tensor]()
        for first in range(0, len(conversations), rows):
            part = [torch.as_tensor(ids, dtype=torch.int32) for ids in conversations[first : first + rows]]
            tokens_BT = nn.utils.rnn.pad_sequence(part, batch_first=True).to(device)  # what fills up comes after what is read
            last_B = torch.arange(len(part)) * tokens_BT.shape[1] + torch.tensor([len(ids) - 1 for ids in part])
            found.append(model.outputs_at(tokens_BT, None, last_B.to(device))[:, 0].cpu())
        return torch.cat(found) if found else torch.zeros(0)

    return score
