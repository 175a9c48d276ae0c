"""The phases that published models were trained in, to start from: functions that return phases for a mixture of one's own.

    ScheduleConfig(llama3({"web-*": 0.5, "*math*": 0.25, "*code*": 0.17, "multi-*": 0.08}, annealing={"books": 1, "code": 1}))

Figures are those of the papers; what a paper leaves out is said here. Learning rates belong to the trainer's recipes of the
same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.schedule.phases import Phase, ramp

Mixture = Mapping[str, float]

M, T = 10**6, 10**12


def deepseek_llm(mixture: Mixture, tokens: int = 2 * T, batch: int = 2304 * 4096) -> tuple[Phase, ...]:
    """DeepSeek LLM 7B (DeepSeek-AI 2024, table 2): one mixture to the end, 4,096 tokens in 2,304 sequences; 67B: 4,608.

    The multi-step learning rate keeps its plateau for 80 % of the tokens, so a later budget only replaces `tokens`, and a run
    goes on from a checkpoint of the plateau (Schedule.prefix).
    """
    return (Phase("main", tokens, 4096, batch, mixture),)


def llama3(
    mixture: Mixture,
    annealing: Mixture,
    long_context: Mixture | None = None,
    tokens: int = int(14.8 * T),
    stages: Sequence[tuple[int, int, int]] = ((0, 4096, 4 << 20), (252 * M, 8192, 8 << 20), (int(2.87 * T), 8192, 16 << 20)),
    lengths: Sequence[int] = (1 << 14, 1 << 15, 1 << 16, 1 << 17),
    long_tokens: int = 800 * 10**9,
    annealing_tokens: int = 40 * M,
) -> tuple[Phase, ...]:
    """Llama 3 405B (Grattafiori et al. 2024, section 3.4): a growing batch, then longer contexts, then annealing.

    `tokens` are those of the first part, `stages` its (first token, sequence length, batch tokens) (section 3.4.1); `lengths`:
    of the long-context part, which share `long_tokens` evenly: the paper names six stages from 8 Ki to 128 Ki and not their
    lengths, these are the powers of two. Documents are as they come in `mixture`; `long_context`, where given, prefers sources
    of long ones (route.route_by_value). `annealing` is the mixture of the last `annealing_tokens` (section 3.4.3), with a last
    batch no larger than they are.
    """
    ends = [start for start, _, _ in stages[1:]] + [tokens]
    parts = [
        Phase(f"main, {length} x {batch // length}", end - start, length, batch, mixture)
        for (start, length, batch), end in zip(stages, ends, strict=True)
    ]
    batch = stages[-1][2]
    share = long_tokens // len(lengths)
    parts += [Phase(f"context {length}", share, length, batch, long_context or mixture) for length in lengths]
    longest = lengths[-1] if lengths else stages[-1][1]
    last = min(batch, annealing_tokens // longest * longest)
    return (*parts, Phase("annealing", annealing_tokens, longest, last, annealing))


def gpt3(mixture: Mixture, tokens: int = 300 * 10**9) -> tuple[Phase, ...]:
    """GPT-3 175B (Brown et al. 2020, appendix B): from 32 k to 3.2 M tokens a batch over the first twelve billion tokens.

    The paper says linearly, over four to twelve billion depending on the model; here in 16 equal steps, in sequences of 2,048.
    """
    steps = linear_ramp(16 * 2048, 1546 * 2048, 16, 12 * 10**9, 2048)
    return ramp(Phase("main", tokens, 2048, 1, mixture), steps)


def bloom(mixture: Mixture, tokens: int = 366 * 10**9) -> tuple[Phase, ...]:
    """BLOOM 176B (BigScience Workshop 2022, table 3): 2,048 sequences of 2,048 tokens.

    The run's published command ramps the batch from 192 sequences by 16 each time over the first 9,765,625 sequences.
    """
    steps = linear_ramp(192 * 2048, 2048 * 2048, 117, 9_765_625 * 2048, 2048)
    return ramp(Phase("main", tokens, 2048, 1, mixture), steps)


def linear_ramp(first: int, last: int, steps: int, tokens: int, length: int) -> list[tuple[int, int]]:
    """For `phases.ramp`: batches from `first` to `last` tokens, the last from `tokens` on, in `steps` equal steps.

    Each batch is a whole number of sequences of `length`.
    """
    sizes = [round((first + (last - first) * i / (steps - 1)) / length) * length for i in range(steps)]
    return [(tokens * i // (steps - 1), size) for i, size in enumerate(sizes)]
