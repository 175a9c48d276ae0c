"""The ledger: per stage and input file, in = kept + dropped + quarantined, or the run fails.

A step's counts are taken from the table it wrote, read back from disk, and held against those of the step before: rows that a
stage, a join or a lost partition made disappear (or appear twice) show as an imbalance of one file at one stage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.errors import UserError
from pipelines.schema import KEPT, QUARANTINED

Entry = dict[str, Any]  # stage, source, file, in, kept, dropped {rule: n}, quarantined {error: n}


class LedgerError(UserError):
    """The rows do not balance: something was lost or made twice. Nothing downstream of it is written."""


def entries(stages: Sequence[str], files: Mapping[str, str], counts: Iterable[dict[str, Any]]) -> list[Entry]:
    """Entries of one step. `files`: the source of each input file; `counts`: `rows` of the step's table by file, outcome,
    stage, drop_rule and error_class.

    What a stage got is what the stage before it let through, within the pass: all rows less those decided earlier.
    """
    decided: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    total: dict[str, int] = dict.fromkeys(files, 0)
    for row in counts:
        if row["file"] not in total:
            raise LedgerError(f"{row['rows']} rows come from {row['file']!r}, which is no input of this run")
        total[row["file"]] += row["rows"]
        if row["outcome"] != KEPT:
            decided[row["file"], row["stage"]].append(row)
    result = []
    for file, left in sorted(total.items()):
        for stage in stages:
            entry: Entry = {"stage": stage, "source": files[file], "file": file, "in": left, "dropped": {}, "quarantined": {}}
            for row in decided.pop((file, stage), []):
                part, name = ("quarantined", "error_class") if row["outcome"] == QUARANTINED else ("dropped", "drop_rule")
                entry[part][row[name]] = entry[part].get(row[name], 0) + row["rows"]
                left -= row["rows"]
            entry["kept"] = left
            result.append(entry)
    if decided:
        raise LedgerError(f"rows decided by stages that this step does not have: {sorted(decided)[:3]}")
    return result


def check(before: Sequence[Entry] | None, after: Sequence[Entry], stages: Sequence[str], last: str | None) -> None:
    """Raise LedgerError unless every entry balances and the step got exactly what the step before kept.

    `before` holds the entries of the step before (None for the first), `last` the name of its last stage.
    """
    for entry in after:
        gone = sum(entry["dropped"].values()) + sum(entry["quarantined"].values())
        if entry["in"] != entry["kept"] + gone or entry["kept"] < 0:
            raise LedgerError(f"stage {entry['stage']!r} does not balance for {entry['file']}: {entry}")
    if before is None:
        return
    kept = {e["file"]: e["kept"] for e in before if e["stage"] == last}
    got = {e["file"]: e["in"] for e in after if e["stage"] == stages[0]}
    for file in sorted(kept.keys() | got.keys()):
        if kept.get(file, 0) != got.get(file, 0):
            raise LedgerError(
                f"stage {stages[0]!r} does not balance for {file}: stage {last!r} kept {kept.get(file, 0)} rows and "
                f"{got.get(file, 0)} came out as kept, dropped or quarantined"
            )


def summary(all_entries: Iterable[Entry], seconds: dict[str, float]) -> dict[str, Any]:
    """OUT/ledger.json: the entries by stage with their sums."""
    stages: dict[str, dict[str, Any]] = {}
    for entry in all_entries:
        new = {"stage": entry["stage"], "in": 0, "kept": 0, "dropped": {}, "quarantined": {}, "files": []}
        stage = stages.setdefault(entry["stage"], new)
        stage["in"] += entry["in"]
        stage["kept"] += entry["kept"]
        for part in ("dropped", "quarantined"):
            for name, rows in entry[part].items():
                stage[part][name] = stage[part].get(name, 0) + rows
        stage["files"].append({k: v for k, v in entry.items() if k != "stage"})
    for name, stage in stages.items():
        stage["seconds"] = round(seconds.get(name, 0.0), 3)
        stage["balance"] = stage["in"] - stage["kept"] - sum(stage["dropped"].values()) - sum(stage["quarantined"].values())
    return {"balanced": all(s["balance"] == 0 for s in stages.values()), "stages": list(stages.values())}
