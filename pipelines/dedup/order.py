"""The survivor order: which of several duplicates is the best, as a total order that depends on the documents alone."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.errors import UserError

# The longest text, then the newest, then the shortest address; doc_id decides what is left.
# A recipe with a quality score puts it first: ("-quality", *ORDER).
ORDER = ("-length", "-date", "url_length")

_DERIVED = {"length": ("text", F.length), "url_length": ("url", F.length)}


def order_columns(df: DataFrame, order: tuple[str, ...]) -> list[Column]:
    """The values that `order` compares, aliased _o0, _o1, ...: columns of `df`, or `length` and `url_length` in characters.

    A leading "-" means the greatest first; nulls are last either way. Raises UserError for a column that is not there.
    """
    return [_value(df, name.removeprefix("-")).alias(f"_o{i}") for i, name in enumerate(order)]


def sort_keys(order: tuple[str, ...]) -> list[Column]:
    """The sort expressions over the columns _o0, _o1, ... of `order_columns`, best first, then doc_id."""
    keys = [
        F.col(f"_o{i}").desc_nulls_last() if name.startswith("-") else F.col(f"_o{i}").asc_nulls_last()
        for i, name in enumerate(order)
    ]
    return [*keys, F.col("doc_id").asc()]


def _value(df: DataFrame, name: str) -> Column:
    if name in df.columns:
        return F.col(name)
    if name in _DERIVED and _DERIVED[name][0] in df.columns:
        base, measure = _DERIVED[name]
        return measure(F.col(base))
    raise UserError(f"the survivor order names {name!r}; it may name length, url_length, {', '.join(df.columns)}")
