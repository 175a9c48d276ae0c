"""What the page says, gathered from the files of a run directory: plain dicts and the inputs of the pictures.

A part that is not there (no training yet, no tokenizer in the recipe) is None or empty, and the page does without it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pipelines.privacy.pii import PiiConfig, find_pii, mask
from pipelines.report import tables
from pipelines.report.charts import Leaving, Level, Series, Stretch
from pipelines.report.compare import compare
from pipelines.report.quality import qualities
from pipelines.report.tokenizer import tokenizer_facts
from pipelines.rundir import RunDir, read_json
from pipelines.schedule import read_schedule
from pipelines.shards import MANIFEST, read_manifest
from pipelines.summary import counts, first_and_last_loss, training_log

Facts = dict[str, Any]

EXAMPLES = 3  # documents shown a rule, and a kind of personal data
PAIRS = 6  # duplicates shown beside their survivors, a rule
PAIR_CHARS = 500  # shown of a side
MOST_LANGUAGES = 12
MOST_QUARANTINED = 50
MOST_FILES = 200  # of the balance per file, a stage
CURVE_POINTS = 500


def gather(rundir: RunDir) -> Facts:
    """Everything the page shows. Raises UserError where a file of the run is damaged."""
    plan = read_json(rundir.plan)
    made = tables.Tables.of(rundir, plan)
    stages = read_json(rundir.ledger)["stages"] if rundir.ledger.is_file() else []
    samples = _samples(made)
    measured = qualities(made.folders, masked, PAIR_CHARS)
    schedule, log = _schedule(rundir), training_log(rundir)
    trained = {source for line in log for source in line.get("validation", {})}
    colours = {source: i % 8 for i, source in enumerate(sorted({*(schedule["sizes"] if schedule else ()), *trained}))}
    return {
        "recipe": plan["recipe"],
        "doc": plan["doc"].strip().split("\n\n")[0],
        "out": str(rundir.path),
        "files": len(plan["files"]),
        "bytes": sum(f["bytes"] for f in plan["files"]),
        "sources": sorted({f["source"] for f in plan["files"]}),
        "counts": counts(rundir) if stages else None,
        "balanced": all(s["balance"] == 0 for s in stages),
        "stages": stages,
        "levels": levels(stages),
        "rules": _rules(stages, samples),
        "duplicates": _duplicates(samples, {f"{q['stage']}.{q['settings']['measure']}" for q in measured}),
        "quality": measured,
        "languages": _languages(made),
        "lengths": _lengths(made),
        "pii": _pii(made, plan),
        "quarantine": _quarantine(made),
        "tokens": _tokens(rundir),
        "tokenizer": tokenizer_facts(rundir, masked),
        "schedule": schedule,
        "training": _training(log, colours) if any("loss" in line for line in log) else None,
        "continuations": _continuations(rundir),
        "colours": colours,
        "most_files": MOST_FILES,
    }


def levels(stages: Iterable[Mapping[str, Any]]) -> list[Level]:
    """The funnel's levels from the stages of the ledger."""
    return [
        Level(
            s["stage"],
            s["in"],
            (
                *(Leaving(rule, n, "dropped") for rule, n in s["dropped"].items()),
                *(Leaving(error, n, "quarantined") for error, n in s["quarantined"].items()),
            ),
        )
        for s in stages
    ]


# --- documents ----------------------------------------------------------------------------------------------------------


def masked(text: str | None) -> str | None:
    """A text fit to be shown: many were removed before the privacy stage, so personal data is masked here too."""
    return mask(text, find_pii(text), PiiConfig()) if text else text


def _samples(made: tables.Tables) -> dict[str, list[dict[str, Any]]]:
    chosen = tables.pick(made.dropped(), ["drop_rule"], tables.by_value("drop_rule"), PAIRS)
    flat = tables.rows((p for places in chosen.values() for p in places), tables.COMPARED_CHARS)
    samples: dict[str, list[dict[str, Any]]] = {}
    for row in flat:
        samples.setdefault(row["drop_rule"], []).append(row)
    return samples


def _rules(stages: Sequence[Mapping[str, Any]], samples: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Per stage that drops: its rules, most documents first, with examples."""
    result = []
    for stage in stages:
        ordered = sorted(stage["dropped"].items(), key=lambda r: (-r[1], r[0]))
        rules = [
            {"rule": rule, "rows": n, "examples": [_example(row) for row in samples.get(rule, [])[:EXAMPLES]]}
            for rule, n in ordered
        ]
        if rules:
            result.append({"stage": stage["stage"], "in": stage["in"], "rules": rules})
    return result


def _example(row: dict[str, Any]) -> dict[str, Any]:
    text = row["text"]
    shown = masked(text[: tables.SHOWN_CHARS]) if text else None
    return row | {"text": shown, "more": max(0, (row["text_chars"] or 0) - tables.SHOWN_CHARS)}


def _duplicates(samples: Mapping[str, list[dict[str, Any]]], shown: Collection[str]) -> list[dict[str, Any]]:
    """Removed beside surviving documents, per rule; without the rules that are `shown` elsewhere."""
    others = [rows for rule, rows in samples.items() if rule not in shown]
    removed = [row for rows in others for row in rows if row["duplicate_of"] is not None]
    survivors = tables.survivors(removed, tables.COMPARED_CHARS)
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for row in removed:
        survivor = survivors.get(row["duplicate_of"])
        if survivor is not None:
            left, right = masked(row["text"]) or "", masked(survivor["text"]) or ""
            pair = {"removed": row, "survivor": survivor, "rows": compare(left, right, PAIR_CHARS), "equal": left == right}
            by_rule.setdefault(row["drop_rule"], []).append(pair)
    return [{"rule": rule, "pairs": pairs} for rule, pairs in sorted(by_rule.items())]


def _languages(made: tables.Tables) -> list[tuple[str, int, int]]:
    """(language, kept, dropped): most kept first, then the rest as one, then those of no language ("")."""
    kept, dropped = tables.languages(made.kept()), tables.languages(made.dropped())
    named = sorted({*kept, *dropped} - {""}, key=lambda lang: (-kept[lang], -dropped[lang], lang))
    shown = named if len(named) <= MOST_LANGUAGES + 1 else named[:MOST_LANGUAGES]
    rest = named[len(shown) :]
    rows = [(lang, kept[lang], dropped[lang]) for lang in shown]
    if rest:
        rows.append((f"{len(rest)} others", sum(kept[lang] for lang in rest), sum(dropped[lang] for lang in rest)))
    return [*rows, *([("", kept[""], dropped[""])] if kept[""] or dropped[""] else [])]


def _lengths(made: tables.Tables) -> dict[str, Any] | None:
    kept, every = tables.length_counts(made.kept())
    dropped, of_dropped = tables.length_counts(made.dropped())
    shown = tables.histogram(kept, dropped)
    return {"histogram": shown, "every": max(every, of_dropped)} if shown else None


def _pii(made: tables.Tables, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    kept = made.kept()
    found = tables.pii_counts(kept)
    if not found:
        return None
    places = tables.pick(kept, found, tables.positive(found), EXAMPLES)
    placeholders = _placeholders(plan)
    kinds = []
    for column, sums in sorted(found.items(), key=lambda f: (-f[1]["found"], f[0])):
        kind = column.removeprefix("pii_")
        examples = [
            row | {"around": around}
            for row in tables.rows(places.get(column, []), tables.COMPARED_CHARS)
            if (around := _around(row["text"], placeholders.get(kind)))
        ]
        kinds.append({"kind": kind, **sums, "examples": examples})
    return {"kinds": kinds, "found": sum(k["found"] for k in kinds)}


def _placeholders(plan: Mapping[str, Any]) -> dict[str, str]:
    """What each kind is masked by: the config of the stage that has a field for e-mail."""
    configs = (stage["config"] for step in plan["steps"] for stage in step["stages"])
    return next((cfg for cfg in configs if isinstance(cfg, dict) and "email" in cfg), {})


def _around(text: str | None, placeholder: str | None, chars: int = 90) -> tuple[str, str, str] | None:
    """(before, placeholder, after) of its first place in the text; None where it is not."""
    at = text.find(placeholder) if text and placeholder else -1
    if text is None or placeholder is None or at < 0:
        return None
    end = at + len(placeholder)
    return masked(text[max(0, at - chars) : at]) or "", placeholder, masked(text[end : end + chars]) or ""


def _quarantine(made: tables.Tables) -> list[dict[str, Any]]:
    chosen = tables.pick(made.quarantined(), ["error_class"], tables.by_value("error_class"), MOST_QUARANTINED)
    rows = tables.rows((p for places in chosen.values() for p in places), 0)
    return sorted(rows, key=lambda r: (r["stage"], r["file"] or "", r["offset"] or 0))[:MOST_QUARANTINED]


# --- tokens, schedule, training -----------------------------------------------------------------------------------------


def _tokens(rundir: RunDir) -> dict[str, Any] | None:
    """Per source: documents and tokens to train on and held out; what the shards are."""
    if not (rundir.shards / MANIFEST).is_file():
        return None
    manifest = read_manifest(rundir.shards)
    sources: dict[str, dict[str, Any]] = {}
    for file in manifest.files:
        row = sources.setdefault(file.source, {"source": file.source, "documents": 0, "train": 0, "validation": 0})
        row["documents"] += file.rows
        row["train" if file.split == "train" else "validation"] += file.tokens
    total = sum(s["train"] for s in sources.values())
    return {"sources": sorted(sources.values(), key=lambda s: -s["train"]), "train": total, "manifest": manifest}


def _schedule(rundir: RunDir) -> dict[str, Any] | None:
    if not rundir.schedule.is_file():
        return None
    schedule = read_schedule(rundir.schedule)
    epochs = schedule.epochs()
    steps = {p["name"]: p["steps"] for p in read_json(rundir.schedule)["phases"]}
    phases = [
        Stretch(
            phase.name,
            steps[phase.name] * phase.batch_tokens,
            steps[phase.name],
            phase.sequence_length,
            phase.batch_tokens,
            {row.source: row.share for row in epochs if row.phase == phase.name},
        )
        for phase in schedule.config.phases
    ]
    return {
        "phases": phases,
        "epochs": epochs,
        "steps": schedule.total_steps,
        "tokens": schedule.total_tokens,
        "sizes": schedule.source_tokens,
    }


def _training(log: list[dict[str, Any]], colours: Mapping[str, int]) -> dict[str, Any]:
    steps = [line for line in log if "loss" in line]
    tokens = {line["step"]: line["tokens"] for line in steps}
    marks = [(a["tokens"], b["phase"]) for a, b in pairwise(steps) if a["phase"] != b["phase"]]
    held: dict[str, list[tuple[float, float]]] = {}
    for line in log:
        for source, loss in line.get("validation", {}).items():
            held.setdefault(source, []).append((float(tokens.get(line["step"], 0)), float(loss)))
    loss = [(float(s["tokens"]), float(s["loss"])) for s in steps]
    speed = sorted(s["tokens_per_second"] for s in steps)
    ends = first_and_last_loss(log)
    assert ends is not None
    return {
        "first_loss": ends[0],
        "last_loss": ends[1],
        "last": steps[-1],
        "marks": marks,
        "loss": Series("", thin(loss, CURVE_POINTS), "faint-line"),
        "mean": Series("train", thin(smooth(loss), CURVE_POINTS), "ink"),
        "validation": [
            Series(f"{name} {points[-1][1]:.2f}", thin(points, CURVE_POINTS), f"s{colours[name]}", True)
            for name, points in sorted(held.items())
        ],
        "lr": Series("", thin([(float(s["tokens"]), float(s["lr"])) for s in steps], CURVE_POINTS), "kept"),
        "speed": speed[len(speed) // 2],
        "waiting": sum(s["data_wait_s"] for s in steps),
        "planned": next((line["plan_in_words"] for line in reversed(log) if "plan_in_words" in line), None),
    }


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each value as the mean of itself and those before it, over a fiftieth of all (at least 5)."""
    window, sums, result = max(5, len(points) // 50), 0.0, []
    finite = [p for p in points if math.isfinite(p[1])]
    for index, (x, y) in enumerate(finite):
        sums += y - (finite[index - window][1] if index >= window else 0.0)
        result.append((x, sums / min(index + 1, window)))
    return result


def thin(points: Sequence[tuple[float, float]], most: int) -> tuple[tuple[float, float], ...]:
    """At most about `most` points, first and last among them."""
    stride = max(1, -(-len(points) // most))
    return (*points[:-1:stride], *points[-1:])


def _continuations(rundir: RunDir) -> list[dict[str, Any]]:
    """The newest continuation of each prompt."""
    file = rundir.training / "samples.jsonl"
    if not file.is_file():
        return []
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1] if line]
    return list({(line["lang"], line["prompt"]): line for line in sorted(lines, key=lambda s: s["step"])}.values())
