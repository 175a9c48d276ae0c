"""What a recipe says of training: phases with budget, sequence length, batch, mixture and packing; `schedule.py` compiles them.

    main = Phase("main", 13 * 10**12, 4096, 4 << 20, {"web-*": 0.5, "*-math": 0.25, "code": 0.17, "multilingual": 0.08})
    ScheduleConfig((*ramp(main, ((0, 4 << 20), (252 * 10**6, 8 << 20))), Phase("annealing", 40 * 10**6, ...)))

Weights are given by source, or by a pattern that stands for a class of sources; a budget by what it reads of each
(`by_epochs`); a batch that grows as `ramp`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Literal, get_args

from pipelines.schedule.mixture import ONE

Pairs = tuple[tuple[str, float], ...]
Packing = Literal["concatenate", "best_fit", "document"]

_COUNT = re.compile("[1-9][0-9]*")


class ScheduleError(Exception):
    """A plan that cannot be carried out. The message holds the numbers and what to change."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one mixture, sequence length and batch.

    `tokens`: budget; whole steps are taken, the rest of a step is left. `weights`: share of the tokens per source, in any
    unit; a source of weight 0 or not named is not read. A name with `*`, `?` or `[...]` is a pattern (fnmatch): its weight is
    shared out among the sources it matches and no plain name names, in proportion to their tokens (times their copies).
    `max_epochs`: how often a source may have been read in all by the end of this phase (one bound for all, or per source or
    pattern); None for no bound. Mappings are kept as sorted pairs.

    `packing`: "concatenate" cuts a source's stream every `sequence_length` tokens; "best_fit" fills sequences with whole
    documents, cutting only those longer than a sequence (Ding et al. 2024, "Fewer Truncations Improve Language Modeling",
    section 3); "document" gives each document a sequence of its own, as post-training takes them. The last two fill up with
    what is no target, which counts for `tokens`.
    """

    name: str
    tokens: int
    sequence_length: int
    batch_tokens: int
    weights: Mapping[str, float] | Pairs
    max_epochs: float | Mapping[str, float] | Pairs | None = None
    packing: Packing = "concatenate"

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _pairs(self.weights))
        if self.max_epochs is not None and not isinstance(self.max_epochs, (int, float)):
            object.__setattr__(self, "max_epochs", _pairs(self.max_epochs))
        if self.packing not in get_args(Packing):
            raise ValueError(f"phase {self.name!r}: packing {self.packing!r} is none of {', '.join(get_args(Packing))}")


@dataclass(frozen=True)
class ScheduleConfig:
    """Phases in order."""

    phases: tuple[Phase, ...]


# --- names and patterns of sources ------------------------------------------------------------------------------------------


def copies(source: str) -> int:
    """How often the documents of a source are wanted: n for a name that ends in "-xn" (route.route_by_cluster_size), else 1."""
    name, _, number = source.rpartition("-x")
    return int(number) if name and _COUNT.fullmatch(number) else 1


def with_copies(source_tokens: Mapping[str, int]) -> dict[str, int]:
    """The tokens of each source times its copies: as weights, they read "web-x5" five times as often as "web".

    Where a schedule is a function of the tokens there are, as recipes.web.one_epoch, it becomes one of the corpus with its
    copies written out: `one_epoch(with_copies(source_tokens))`.
    """
    return {source: tokens * copies(source) for source, tokens in source_tokens.items()}


def weights_of(phase: Phase, source_tokens: Mapping[str, int]) -> dict[str, float]:
    """The weight of each source, patterns shared out. Raises ScheduleError for a name or a pattern without a source."""
    given = dict(phase.weights)
    weights = {name: weight for name, weight in given.items() if not _is_pattern(name)}
    owner: dict[str, str] = {}
    for pattern in sorted(given.keys() - weights.keys()):
        found = [s for s in sorted(source_tokens) if fnmatchcase(s, pattern) and s not in weights.keys() - owner.keys()]
        if twice := [s for s in found if s in owner]:
            raise ScheduleError(
                f"phase {phase.name!r}: source {twice[0]!r} is of {owner[twice[0]]!r} and of {pattern!r}; name it by itself too"
            )
        wanted = with_copies({s: source_tokens[s] for s in found})
        if not (total := sum(wanted.values())):
            raise ScheduleError(unknown(f"phase {phase.name!r}", pattern, source_tokens))
        weights |= {s: given[pattern] * n / total for s, n in wanted.items()}
        owner |= dict.fromkeys(found, pattern)
    for source in weights:
        if source not in source_tokens:
            raise ScheduleError(unknown(f"phase {phase.name!r}", source, source_tokens))
    return weights


def cap_of(phase: Phase, source: str) -> float | None:
    """The bound on a source's epochs, or None: its own, or the lowest of the patterns that it is of, times its copies."""
    if phase.max_epochs is None or isinstance(phase.max_epochs, (int, float)):
        return phase.max_epochs
    caps = dict(phase.max_epochs)
    of_patterns = [cap * copies(source) for p, cap in caps.items() if _is_pattern(p) and fnmatchcase(source, p)]
    return caps.get(source, min(of_patterns, default=None))


def _check_caps(phase: Phase, source_tokens: Mapping[str, int]) -> None:
    """Raise ScheduleError for a bound on what is not there."""
    for name, _ in phase.max_epochs if isinstance(phase.max_epochs, tuple) else ():
        if not any(fnmatchcase(s, name) if _is_pattern(name) else s == name for s in source_tokens):
            raise ScheduleError(unknown(f"phase {phase.name!r}", name, source_tokens))


def unknown(where: str, source: str, source_tokens: Mapping[str, int]) -> str:
    """The message for a name or a pattern that no source with tokens has."""
    has = ", ".join(sorted(source_tokens)) or "none"
    if _is_pattern(source):
        return f"{where}: no source that has tokens matches {source!r}; the shards have {has}"
    return f"{where}: source {source!r} is not in the shards; they have {has}"


def _is_pattern(name: str) -> bool:
    return any(c in name for c in "*?[")


def _pairs(values: Mapping[str, float] | Pairs) -> Pairs:
    items = list(values.items() if isinstance(values, Mapping) else values)
    if len(dict(items)) < len(items):
        raise ValueError(f"a source is named twice in {items}")
    return tuple(sorted((str(source), float(value)) for source, value in items))


def check_phase(phase: Phase, source_tokens: Mapping[str, int]) -> None:
    """Raise ScheduleError, with the numbers, for a phase that makes no sense by itself or with the tokens there are."""
    weights, name = dict(phase.weights), f"phase {phase.name!r}"
    if phase.sequence_length < 1 or phase.batch_tokens < 1 or phase.batch_tokens % phase.sequence_length:
        raise ScheduleError(
            f"{name}: batch_tokens {phase.batch_tokens} is no multiple of sequence_length {phase.sequence_length}; "
            f"take {max(1, round(phase.batch_tokens / max(phase.sequence_length, 1))) * phase.sequence_length}"
        )
    if phase.tokens < phase.batch_tokens:
        raise ScheduleError(f"{name}: a budget of {phase.tokens} tokens is shorter than one batch of {phase.batch_tokens}")
    if phase.tokens // phase.sequence_length >= ONE:
        raise ScheduleError(
            f"{name}: {phase.tokens // phase.sequence_length} samples; a phase holds fewer than {ONE}; make it two"
        )
    bad = {s: w for s, w in weights.items() if not (math.isfinite(w) and w >= 0)}
    if bad or not sum(weights.values()) > 0:
        raise ScheduleError(
            f"{name}: weights {weights} do not sum to something positive; give each source a weight of 0 or more"
        )
    _check_caps(phase, source_tokens)
    for source, weight in weights_of(phase, source_tokens).items():
        if weight and source_tokens[source] < 1:
            raise ScheduleError(f"{name}: source {source!r} has weight {weight:g} and no tokens; give it the weight 0")


# --- ways to write phases ---------------------------------------------------------------------------------------------------


def by_epochs(epochs: Mapping[str, float], source_tokens: Mapping[str, int]) -> dict[str, float]:
    """Weights that up- and down-sample: tokens of each source times its epochs (a name or a pattern); their sum is a budget.

    `Phase("main", int(sum(w.values())), ..., w := by_epochs({"web-*": 1, "books": 2.5}, tokens))` reads the books 2.5 times.
    Raises ScheduleError like `weights_of`.
    """
    every = weights_of(Phase("by_epochs", 1, 1, 1, {name: 1.0 for name in epochs}), source_tokens)
    weights = {}
    for source in every:
        named = [p for p in epochs if p == source] or [p for p in epochs if _is_pattern(p) and fnmatchcase(source, p)]
        weights[source] = source_tokens[source] * copies(source) * epochs[named[0]]
    return weights


def ramp(phase: Phase, batches: Sequence[tuple[int, int]]) -> tuple[Phase, ...]:
    """A phase whose batch grows: (tokens of the phase seen, batch tokens from there on), from 0 on, ascending.

    Llama 3 (section 3.4.1) in its first length: `ramp(main, ((0, 4 << 20), (252 * 10**6, 8 << 20)))`. The parts are named
    "main, batch 4194304" and so on; the last one keeps the name. Raises ScheduleError.
    """
    starts = [start for start, _ in batches]
    if not batches or starts[0] != 0 or any(a >= b for a, b in pairwise([*starts, phase.tokens])):
        raise ScheduleError(
            f"ramp of phase {phase.name!r}: {list(batches)} must start at 0, ascend and end before {phase.tokens} tokens"
        )
    parts = [
        replace(phase, name=f"{phase.name}, batch {batch}", tokens=after - start, batch_tokens=batch)
        for (start, batch), after in zip(batches, [*starts[1:], phase.tokens], strict=True)
    ]
    return (*parts[:-1], replace(parts[-1], name=phase.name))


def rehydrated(cfg: ScheduleConfig, source_tokens: Mapping[str, int]) -> ScheduleConfig:
    """`cfg` with the weight of each source shared out among its parts ("web" among "web", "web-x2", "web-x5") by `with_copies`.

    The weight of the source as a whole stays. A bound on its epochs is one of the source with its copies written out: 2 lets a
    document of "web-x5" be read ten times. A source of which a phase names a part "-xn" itself is left as it is there. Raises
    ScheduleError for a source that is not there.
    """
    wanted, parts = with_copies(source_tokens), dict[str, list[str]]()
    for source in sorted(source_tokens):
        parts.setdefault(source.rpartition("-x")[0] if copies(source) > 1 else source, []).append(source)

    def shared(phase: Phase) -> Phase:
        given, weights, bounds = dict(phase.weights), dict[str, float](), dict[str, float]()
        for source, weight in given.items():
            here = parts.get(source, [])
            if not here or any(part in given for part in here if part != source):
                here = [source]
            if missing := [part for part in here if part not in source_tokens]:
                raise ScheduleError(unknown(f"phase {phase.name!r}", missing[0], source_tokens))
            total = sum(wanted[part] for part in here)
            weights |= {part: weight * wanted[part] / total if total else weight for part in here}
            if (bound := cap_of(phase, source)) is not None:
                bounds |= {part: bound * (copies(part) / copies(source)) for part in here}
        return replace(phase, weights=weights, max_epochs=bounds or None)

    return replace(cfg, phases=tuple(shared(phase) for phase in cfg.phases))
