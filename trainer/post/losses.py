"""Losses of post-training: pure functions of log-probabilities and rewards, fp32 in and out, a value an answer or a pair.

Log-probabilities of an answer come from those of its tokens (Decoder.losses, which never holds the logits of a batch) summed
over the tokens that count. Shapes: N answers, P pairs, S sequences, all tokens flattened to M. A log-ratio is a
log-probability less that of the reference model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["dpo", "ipo", "orpo", "simpo", "kto"]
NEEDS_REFERENCE = ("dpo", "ipo", "kto")


@dataclass(frozen=True)
class Preference:
    """Which loss of pairs, and with what constants.

    `smoothing`: chance that a pair is labelled the wrong way round (conservative DPO, Mitchell 2023). `nll`: weight of the mean
    loss of a token of the better answer (Llama 3, section 4.1.4: 0.2; normalised by the answer's length as in Pang et al. 2024,
    arXiv 2404.19733, section 2). `format_mask`: headers and terminators do not count for the comparison (Llama 3, the same
    place); they do for `nll`, which pulls no two answers apart.
    """

    kind: Kind = "dpo"
    beta: float = 0.1
    smoothing: float = 0.0
    gamma: float = 0.5  # SimPO: the reward margin that is aimed at
    nll: float = 0.0
    format_mask: bool = True

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(get_args(Kind))}")
        if not self.beta > 0 or not 0 <= self.smoothing < 0.5 or self.nll < 0:
            raise ValueError(
                f"beta {self.beta} must be above 0, smoothing {self.smoothing} in [0, 0.5), nll {self.nll} 0 or more"
            )


class Answers(NamedTuple):
    """Of each answer the log-probability, that of the reference (zeros where none is needed), and how many tokens count."""

    log_p: Tensor
    reference: Tensor
    tokens: Tensor

    @property
    def ratio(self) -> Tensor:
        """Log-ratio to the reference."""
        return self.log_p - self.reference

    def take(self, index: Tensor) -> Answers:
        """Some of them, in this order."""
        return Answers(*(values[index] for values in self))


def sum_by_sequence(values_M: Tensor, sequence_M: Tensor, sequences: int) -> Tensor:
    """Sums of tokens' values over each sequence (S,). `sequence_M`: the number of each token's sequence, from 0."""
    return values_M.new_zeros(sequences).index_add_(0, sequence_M, values_M)


def nll(answers: Answers) -> Tensor:
    """Mean loss of an answer's tokens in nats (N,)."""
    return -answers.log_p / answers.tokens.clamp(min=1)


def preference(cfg: Preference, chosen: Answers, rejected: Answers) -> Tensor:
    """The loss of each pair (P,), without the NLL term."""
    match cfg.kind:
        case "dpo":
            return dpo(chosen.ratio, rejected.ratio, cfg.beta, cfg.smoothing)
        case "ipo":
            return ipo(chosen.ratio / chosen.tokens.clamp(min=1), rejected.ratio / rejected.tokens.clamp(min=1), cfg.beta)
        case "orpo":
            return nll(chosen) + cfg.beta * odds_ratio(-nll(chosen), -nll(rejected))
        case "simpo":
            return simpo(-nll(chosen), -nll(rejected), cfg.beta, cfg.gamma)
        case "kto":
            both = torch.cat((chosen.ratio, rejected.ratio))
            baseline = both.detach().mean().clamp(min=0)
            good = torch.cat((torch.ones_like(chosen.ratio), torch.zeros_like(rejected.ratio))) > 0
            first, second = kto(both, good, baseline, cfg.beta).chunk(2)
            return (first + second) / 2


def reward_pairs(chosen_P: Tensor, rejected_P: Tensor, margin_P: Tensor | float = 0.0) -> Tensor:
    """Bradley-Terry loss of rewards (Ouyang et al. 2022, equation 1), less a margin (Llama 2, section 3.2.2)."""
    return -F.logsigmoid(chosen_P - rejected_P - margin_P)


def dpo(chosen_P: Tensor, rejected_P: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """Of log-ratios (Rafailov et al. 2023, equation 7); `smoothing` makes it conservative."""
    margin_P = beta * (chosen_P - rejected_P)
    return -(1 - smoothing) * F.logsigmoid(margin_P) - smoothing * F.logsigmoid(-margin_P)


def ipo(chosen_P: Tensor, rejected_P: Tensor, beta: float) -> Tensor:
    """Of log-ratios a token (Azar et al. 2023, arXiv 2310.12036, equation 17, with tau = beta)."""
    return (chosen_P - rejected_P - 1 / (2 * beta)).square()


def simpo(chosen_P: Tensor, rejected_P: Tensor, beta: float, gamma: float) -> Tensor:
    """Of log-probabilities a token, without a reference (Meng et al. 2024, arXiv 2405.14734, equation 6)."""
    return -F.logsigmoid(beta * (chosen_P - rejected_P) - gamma)


def odds_ratio(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """Of log-probabilities a token (ORPO: Hong et al. 2024, arXiv 2403.07691, equation 7)."""
    return -F.logsigmoid(_log_odds(chosen_P) - _log_odds(rejected_P))


def _log_odds(log_p: Tensor) -> Tensor:
    return log_p - torch.log(-torch.expm1(log_p.clamp(max=-1e-7)))


def kto(ratio_N: Tensor, good_N: Tensor, baseline: Tensor | float, beta: float) -> Tensor:
    """Of log-ratios of single answers, good or bad (Ethayarajh et al. 2024, arXiv 2402.01306, equation 8, both weighted 1).

    `baseline`: an estimate of the KL divergence from the reference, not below 0; it is given no gradient.
    """
    sign_N = torch.where(good_N, 1.0, -1.0)
    return 1 - torch.sigmoid(beta * sign_N * (ratio_N - baseline))
