"""Take documents down: tombstones that every reader of the shards honours, without a token moving.

    find what is asked for -> publish its tombstones -> write the schedule for the shards as they are now

What was asked for is kept in OUT/takedowns.json, so that shards that a later run writes anew are without these documents too.
The tombstones come into force with the manifest that names them (tombstones.py). The schedule is written after it; until
then the old one holds, since shards descend from what they were before a takedown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.errors import UserError
from pipelines.lookup import IGNORED
from pipelines.provenance.places import Place, Wanted, find, wanted, with_urls
from pipelines.rundir import RunDir, read_json, write_json
from pipelines.schedule import read_schedule, write_schedule
from pipelines.shards import Shards
from pipelines.shards.manifest import Manifest
from pipelines.shards.tombstones import TOMBSTONES, publish_tombstones, read_tombstones
from pipelines.summary import training_log

RECORD = "takedowns.json"  # in OUT


@dataclass(frozen=True)
class Twin:
    """A removed document that was asked for, whose text stays in the shards as the document that it is a duplicate of."""

    url: str | None
    stays: Place


@dataclass(frozen=True)
class Takedown:
    """What was asked for and found. `new`: not taken down before; `missing`: reasons that no document of the shards has."""

    new: tuple[Place, ...]
    before: tuple[Place, ...]
    missing: tuple[str, ...]
    twins: tuple[Twin, ...]
    manifest: Manifest  # as it is afterwards


def takedown(
    root: Path, asked: Wanted, schedule: Path | None, dry_run: bool = False, advance: Callable[[int], object] = lambda _: None
) -> Takedown:
    """Find documents and put their tombstones in force; `dry_run` only finds. Nothing new: nothing is written.

    `schedule` is written anew for the shards as they are then, with the same content; None: there is none. Holds OUT's lock.
    Raises UserError, ShardError, ScheduleError.
    """
    rundir = RunDir(root.parent)
    if not dry_run:
        rundir.lock()
    try:
        shards = Shards(root)
        places = with_urls(shards, find(shards, asked, advance))
        gone = {tuple(row.values()) for row in read_tombstones(root, shards.manifest).select(["file", "row"]).to_pylist()}
        new = tuple(place for place in places if (place.file, place.row) not in gone)
        before = tuple(place for place in places if (place.file, place.row) in gone)
        missing = tuple(sorted(set(asked.all_reasons()) - {place.reason for place in places}))
        twins = tuple(_twins(rundir, shards, asked, places))
        manifest = shards.manifest
        compiled = read_schedule(schedule, *manifest.lineage) if schedule is not None else None
        if not dry_run:
            if new:
                if rundir.plan.is_file():
                    _record(rundir, asked)
                manifest = publish_tombstones(root, manifest, _table(new))
            if compiled is not None and schedule is not None and compiled.shards_fingerprint != manifest.fingerprint:
                compiled.shards_fingerprint = manifest.fingerprint  # no position has moved
                write_schedule(schedule, compiled)
    except OSError as error:
        raise UserError(f"cannot write to {rundir.path}: {error.strerror or error}; run the same command again") from error
    finally:
        if not dry_run:
            rundir.release()
    return Takedown(new, before, missing, twins, manifest)


def apply_recorded(out: Path, root: Path) -> int:
    """Take out of new shards what OUT/takedowns.json names; returns how many documents. Raises UserError, ShardError."""
    if not (out / RECORD).is_file():
        return 0
    shards = Shards(root)
    places = find(shards, _recorded(out))
    if places:
        publish_tombstones(root, shards.manifest, _table(places))
    return len(places)


def _record(rundir: RunDir, asked: Wanted) -> None:
    known = _recorded(rundir.path) if (rundir.path / RECORD).is_file() else Wanted({}, frozenset(), frozenset())
    content = {
        "urls": sorted({**known.urls, **asked.urls}.values()),
        "domains": sorted(known.domains | asked.domains),
        "doc_ids": sorted(doc_id.hex() for doc_id in known.doc_ids | asked.doc_ids),
    }
    write_json(rundir.path / RECORD, content)


def _recorded(out: Path) -> Wanted:
    content = read_json(out / RECORD)
    try:
        return wanted(content["urls"], content["domains"], content["doc_ids"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{out / RECORD} does not hold urls, domains and doc_ids; mend it, or bring it back from a copy"
        ) from error


def steps_done(rundir: RunDir) -> int | None:
    """How many steps the training in OUT/train has done; None where nothing was trained."""
    steps = [line["step"] for line in training_log(rundir) if "loss" in line]
    return max(steps) if steps else None


def _table(places: Sequence[Place]) -> pa.Table:
    return pa.Table.from_pylist([{name: getattr(place, name) for name in TOMBSTONES.names} for place in places], TOMBSTONES)


def _twins(rundir: RunDir, shards: Shards, asked: Wanted, places: list[Place]) -> list[Twin]:
    """Documents asked for that the run removed as duplicates of one that is in the shards and not asked for."""
    if not rundir.removed.is_dir():
        return []
    removed = ds.dataset(rundir.removed, format="parquet", ignore_prefixes=IGNORED)
    copies = pc.field("duplicate_of").is_valid()
    found: list[dict[str, Any]] = []
    for batch in removed.to_batches(columns=["doc_id", "url", "duplicate_of"], filter=copies):
        found += batch.filter(pa.array(asked.mask(batch["doc_id"], batch["url"]))).to_pylist()
    survivor = {row["duplicate_of"]: row["duplicate_of"] for row in found}
    while frontier := set(survivor.values()):  # the survivor of one stage may have gone as a duplicate in a later one
        again = copies & pc.field("doc_id").isin(pa.array(sorted(frontier), pa.binary()))
        next_ = removed.to_table(columns=["doc_id", "duplicate_of"], filter=again).to_pylist()
        if not next_:
            break
        onward = {row["doc_id"]: row["duplicate_of"] for row in next_}
        survivor = {first: onward.get(last, last) for first, last in survivor.items()}
    taken = {place.doc_id for place in places}
    stay = Wanted({}, frozenset(), frozenset(survivor.values()) - taken)
    by_id = {place.doc_id: place for place in with_urls(shards, find(shards, stay))}
    twins = [(row["url"], by_id.get(survivor[row["duplicate_of"]])) for row in found]
    return sorted((Twin(url, place) for url, place in twins if place), key=lambda t: (t.url or "", t.stays.doc_id))
