"""The Arrow schema of every table, and the three things a batch stage may do to a row.

A row is a document on its way. It is *kept* until a stage drops it (a decision, with rule, value and bound) or quarantines
it (an error, to be replayed after a fix). A stage never removes a row: it marks it, and the adapter in `spark.py` takes marked
rows out of the flow and into the table's `outcome=dropped` or `outcome=quarantined` part, so that nothing is lost in silence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

# What every reader yields. `html` or `text` is set, never both; `text` of a web page comes from the extract stage.
RECORD = pa.schema(
    [
        ("doc_id", pa.binary()),  # 16 bytes, see doc_id()
        ("source", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),  # ISO 8601, UTC
        ("lang", pa.string()),  # ISO 639-1, set by the reader only where the input names it
        ("text", pa.string()),
        ("html", pa.string()),  # decoded page
        ("charset", pa.string()),  # WHATWG name used to decode it
        # provenance: where these bytes lie
        ("file", pa.string()),
        ("offset", pa.int64()),  # bytes into the file (into the decompressed stream where it is one gzip member)
        ("length", pa.int64()),  # bytes of the record; a file's records tile it without gap or overlap
        ("record_id", pa.string()),  # the input's own name of the record, null where it has none
    ]
)

# The decision a stage writes. All null: the row goes on.
DECISION = pa.schema(
    [
        ("drop_rule", pa.string()),  # "<rule set>.<rule>"
        ("drop_value", pa.float64()),  # what was measured
        ("drop_bound", pa.float64()),  # what the rule allows
        ("drop_entry", pa.string()),  # the entry of a list that was hit; null where the rule has no list
        ("duplicate_of", pa.binary()),  # doc_id of the survivor, for duplicates
        ("error_class", pa.string()),  # set means quarantined
        ("error_message", pa.string()),
    ]
)

# What the adapter adds when it takes a row out of the flow.
OUTCOME = pa.schema([("outcome", pa.string()), ("stage", pa.string())])
KEPT, DROPPED, QUARANTINED = "kept", "dropped", "quarantined"

# OUT/removed and OUT/quarantine
REMOVED = pa.schema(
    [
        ("doc_id", pa.binary()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("stage", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("bound", pa.float64()),
        ("entry", pa.string()),
        ("duplicate_of", pa.binary()),
        ("file", pa.string()),
        ("offset", pa.int64()),
    ]
)
QUARANTINE = pa.schema(
    [
        ("doc_id", pa.binary()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("stage", pa.string()),
        ("error_class", pa.string()),
        ("error_message", pa.string()),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("record_id", pa.string()),
    ]
)


def doc_id(source: str, identity: str, content: bytes) -> bytes:
    """16 bytes: BLAKE2b of source, record identity and content, never an arrival number, a file name or a position.

    `identity` is the record's own name in its source (WARC-Record-ID, a JSONL `id`, a URL; "" where there is none).
    """
    digest = hashlib.blake2b(digest_size=16, person=b"headrace-doc")
    for part in (source.encode(), identity.encode(), content):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def record_batch(columns: Mapping[str, Sequence[object] | pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    """A batch of `schema` from columns; columns that are not given are null. Raises KeyError on a column not in it."""
    unknown = set(columns) - set(schema.names)
    if unknown:
        raise KeyError(f"columns {sorted(unknown)} are not in the schema {schema.names}")
    rows = max((len(c) for c in columns.values()), default=0)
    arrays = []
    for field in schema:
        column = columns.get(field.name)
        if column is None:
            arrays.append(pa.nulls(rows, field.type))
        elif isinstance(column, pa.Array):
            arrays.append(column if column.type == field.type else column.cast(field.type))
        else:
            arrays.append(pa.array(column, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def with_columns(batch: pa.RecordBatch, columns: Mapping[str, Sequence[object] | pa.Array]) -> pa.RecordBatch:
    """The batch with columns set: replaced where the name exists (its type is kept), appended where it does not."""
    for name, column in columns.items():
        index = batch.schema.get_field_index(name)
        if index < 0:
            batch = batch.append_column(name, column if isinstance(column, pa.Array) else pa.array(column))
        else:
            field = batch.schema.field(index)
            array = column if isinstance(column, pa.Array) else pa.array(column, field.type)
            batch = batch.set_column(index, field, array.cast(field.type))
    return batch


def with_decision(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the DECISION columns, null where it lacked them."""
    for field in DECISION:
        if batch.schema.get_field_index(field.name) < 0:
            batch = batch.append_column(field, pa.nulls(batch.num_rows, field.type))
    return batch


def undecided(batch: pa.RecordBatch) -> pa.Array:
    """Boolean array: rows that no rule has dropped and no error has quarantined so far."""
    batch = with_decision(batch)
    return pc.and_(pc.is_null(batch["drop_rule"]), pc.is_null(batch["error_class"]))


def drop(
    batch: pa.RecordBatch,
    where: pa.Array | Sequence[bool],
    rule: str | pa.Array,
    value: pa.Array | Sequence[float] | float | None,
    bound: pa.Array | Sequence[float] | float | None,
    duplicate_of: pa.Array | None = None,
    entry: pa.Array | Sequence[str | None] | str | None = None,
) -> pa.RecordBatch:
    """Mark rows as dropped by `rule` with the measured `value` and the `bound` it broke; the first decision on a row stands.

    `where` of shape (rows,), a null counts as False; `rule`, `value` and `bound` are columns or the same for all, as
    `entry` is, the entry of a list that was hit.
    """
    decision = {"drop_rule": rule, "drop_value": value, "drop_bound": bound, "drop_entry": entry}
    return _mark(batch, where, {**decision, "duplicate_of": duplicate_of})


def quarantine(
    batch: pa.RecordBatch, where: pa.Array | Sequence[bool], error_class: str, message: pa.Array | Sequence[str] | str
) -> pa.RecordBatch:
    """Mark rows as quarantined: they could not be judged. The first decision on a row stands."""
    return _mark(batch, where, {"error_class": error_class, "error_message": message})


def _mark(batch: pa.RecordBatch, where: pa.Array | Sequence[bool], columns: Mapping[str, object]) -> pa.RecordBatch:
    batch = with_decision(batch)
    mask = where if isinstance(where, pa.Array) else pa.array(where, pa.bool_())
    mask = pc.and_(pc.fill_null(mask, False), undecided(batch))
    for name, column in columns.items():
        kind = DECISION.field(name).type
        if isinstance(column, (str, bytes, int, float)) or column is None:
            new: pa.Array | pa.Scalar = pa.scalar(column, kind)
        else:
            new = column.cast(kind) if isinstance(column, pa.Array) else pa.array(column, kind)
        batch = with_columns(batch, {name: pc.if_else(mask, new, batch[name])})
    return batch
