"""Any filter of datatrove (pip install datatrove) as a batch stage: `Stage(from_datatrove(make), DatatroveConfig())`.

    def short_docs() -> BaseFilter:
        return GopherQualityFilter(min_doc_words=30)

    Stage(from_datatrove(short_docs), DatatroveConfig())

The filter's reason becomes the rule: `datatrove.<filter class>.<reason>`. datatrove tells no value and no bound: they are null.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from pipelines.errors import UserError
from pipelines.recipe import batch_stage
from pipelines.schema import drop, with_columns


@dataclass(frozen=True)
class DatatroveConfig:
    """How documents are handed over. The filter's own settings are in the factory; raise `version` when you change them."""

    metadata: tuple[str, ...] = ("url", "lang", "date")  # columns given as metadata; `lang` also as `language`
    keep_changes: bool = True  # take over the text where the filter changes it (C4)
    version: int = 1


def from_datatrove(make: Callable[[], Any]) -> Callable[[pa.RecordBatch, DatatroveConfig], pa.RecordBatch]:
    """A batch stage that runs the filter which `make` returns, made once a process. Named after `make`.

    Raises UserError if datatrove is not installed. A filter must judge each document by itself: one with a state or with
    random numbers would depend on the order of rows.
    """
    name = getattr(make, "__name__", type(make).__name__)

    @batch_stage(name="datatrove" if name == "<lambda>" else f"datatrove_{name}")
    def stage(docs: pa.RecordBatch, cfg: DatatroveConfig) -> pa.RecordBatch:
        document = _document_class()
        judge = _made(make)
        fields = {column: docs[column].to_pylist() for column in cfg.metadata if docs.schema.get_field_index(column) >= 0}
        texts = docs["text"].to_pylist()
        reasons: list[str | None] = [None] * len(texts)
        for i, text in enumerate(texts):
            if text is None:
                continue
            metadata = {column: values[i] for column, values in fields.items() if values[i] is not None}
            if "lang" in metadata:
                metadata["language"] = metadata["lang"]
            doc = document(text=text, id=str(i), metadata=metadata)
            kept, reason = _verdict(judge.filter(doc))
            if kept:
                texts[i] = doc.text
            else:
                reasons[i] = _rule(judge, reason)
        if cfg.keep_changes:
            docs = with_columns(docs, {"text": pa.array(texts, pa.string())})
        for rule in sorted({reason for reason in reasons if reason}):
            docs = drop(docs, [reason == rule for reason in reasons], rule, None, None)
        return docs

    stage.__qualname__ = f"from_datatrove({name})"
    return stage  # type: ignore[no-any-return]


def _verdict(result: Any) -> tuple[bool, str]:
    kept, reason = result if isinstance(result, tuple) else (result, "")
    return bool(kept), reason or ""


def _rule(judge: Any, reason: str) -> str:
    name = re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", type(judge).__name__.removesuffix("Filter")).lower()
    return f"datatrove.{name}.{re.sub(r'[^a-z0-9]+', '_', reason.lower()).strip('_') or 'dropped'}"


@lru_cache(maxsize=64)
def _made(make: Callable[[], Any]) -> Any:
    return make()


def _document_class() -> Any:
    try:
        return importlib.import_module("datatrove.data").Document
    except ImportError as error:
        raise UserError(f"from_datatrove needs the package datatrove ({error}); pip install datatrove==0.10.1") from error
