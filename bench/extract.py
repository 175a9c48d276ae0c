"""Extraction: speed and likeness to the known main text, against trafilatura and resiliparse alone; charset detection."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa

from bench.common import About, Row, installed, interleave, row, run_bench, sample, speed_rows, version
from bench.corpus import jsonl, pages
from bench.overlap import f1, folded
from pipelines.extract.html import ExtractConfig, extract
from pipelines.read.charset import CODECS, find_charset, label_to_name

ABOUT = About(
    title="Extraction",
    compared=(
        "The same decoded pages, on one core. Ours is the stage with its bounds and its child process, so passing pages "
        "through pipes counts, and each page asks both engines (the other one rescues what the first loses) but where "
        "rescue is off; the peers are bare calls in the process: trafilatura.extract with its defaults, favor_precision "
        "and fast (comments off in all, as ours), resiliparse's main content. F1: mean over the pages whose whole main "
        "text is known, bags of words and of 4-grams. Segments: share of the passages that must be in the text and are, "
        "and share of those that must not and are not. Charset: share of real files whose text comes out as with the true "
        "charset; `bytes alone` with the declaration inside the file taken out, for the detectors do not read one. "
        "Reading WARC is not measured here."
    ),
    peers=("trafilatura", "resiliparse", "faust-cchardet", "charset-normalizer"),
)
_DECLARATION = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?[\w:-]+["']?""", re.I)
REPEAT = 2
OURS = {
    "trafilatura": ExtractConfig(engine="trafilatura"),
    "resiliparse": ExtractConfig(engine="resiliparse"),
    "resiliparse, rescue off": ExtractConfig(engine="resiliparse", rescue=0.0),
}
Texts = list[str]


def ours(cfg: ExtractConfig, html: Sequence[str]) -> Texts:
    """Texts by the stage."""
    columns = {"html": pa.array(html, pa.string()), "text": pa.nulls(len(html), pa.string())}
    return [text or "" for text in extract(pa.RecordBatch.from_pydict(columns), cfg)["text"].to_pylist()]


def bare_trafilatura(html: Sequence[str], **options: Any) -> Texts:
    """Texts by trafilatura alone."""
    import logging

    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    return [trafilatura.extract(page, include_comments=False, **options) or "" for page in html]


def bare_resiliparse(html: Sequence[str]) -> Texts:
    """Texts by resiliparse alone."""
    from resiliparse.extract.html2text import extract_plain_text

    return [extract_plain_text(page, main_content=True) for page in html]


def peers(html: Sequence[str]) -> dict[str, Callable[[], Texts]]:
    """The libraries alone."""
    name = version("trafilatura")
    return {
        f"{name}, default": functools.partial(bare_trafilatura, html),
        f"{name}, precision": functools.partial(bare_trafilatura, html, favor_precision=True),
        f"{name}, fast": functools.partial(bare_trafilatura, html, fast=True),
        version("resiliparse"): functools.partial(bare_resiliparse, html),
    }


def extraction(chosen: Sequence[dict[str, Any]], repeat: int) -> list[Row]:
    """Speed and likeness, each way of ours against the peers it stands against."""
    html = [page["html"] for page in chosen]
    mine = {name: functools.partial(ours, cfg) for name, cfg in OURS.items()}
    for warm in mine.values():
        warm(html[:3])
    for run in peers(html[:3]).values():
        run()
    every: dict[str, Callable[[], Texts]] = {name: functools.partial(f, html) for name, f in mine.items()}
    seconds, found = interleave(every | peers(html), repeat)
    scores = {name: likeness(chosen, result) for name, result in found.items()}
    rows: list[Row] = []
    for name in OURS:
        against = [peer for peer in found if peer not in OURS and name.split(",")[0] in peer]
        rows += speed_rows(f"speed, {name}", "docs/s", len(html), {k: seconds[k] for k in (name, *against)}, name)
    for measure in next(iter(scores.values())):
        for name in OURS:
            unit, value = scores[name][measure]
            against = [peer for peer in found if peer not in OURS and name.split(",")[0] in peer]
            rows += [row(f"{measure}, {name}", unit, value, scores[peer][measure][1], peer) for peer in against]
    return rows


def likeness(chosen: Sequence[dict[str, Any]], found: Texts) -> dict[str, tuple[str, float]]:
    """Measure: (unit, value)."""
    whole = [(text, page["text"]) for page, text in zip(chosen, found, strict=True) if page.get("text")]
    scores: dict[str, tuple[str, float]] = {}
    if whole:
        unit = f"mean of {len(whole)}"
        scores["F1 words"] = unit, mean(f1(a, b) for a, b in whole)
        scores["F1 4-grams"] = unit, mean(f1(a, b, 4) for a, b in whole)
    for key, name in (("with", "segments in"), ("without", "segments out")):
        hits = [
            (folded(segment) in folded(text)) is (key == "with")
            for page, text in zip(chosen, found, strict=True)
            for segment in page.get(key) or ()
        ]
        if hits:
            scores[name] = f"share of {len(hits)}", mean(hits)
    return scores


def charsets(data: Path) -> list[Row]:
    """Share of files decoded as with their true charset, by detector."""
    import cchardet
    from charset_normalizer import from_bytes
    from resiliparse.parse.encoding import detect_encoding

    files = [(base64.b64decode(c["b64"]), c["codec"]) for c in jsonl(data / "charset.jsonl.gz")]
    stripped = [(_DECLARATION.sub(b"", body[:4096]) + body[4096:], codec) for body, codec in files]
    detectors: dict[str, Callable[[bytes], str | None]] = {
        version("faust-cchardet"): lambda body: cchardet.detect(body)["encoding"],
        version("resiliparse"): lambda body: detect_encoding(body, html5_compatible=False),
        version("charset-normalizer"): lambda body: getattr(from_bytes(body[: 1 << 16]).best(), "encoding", None),
    }
    rows = []
    theirs = {name: _share_right(stripped, detect) for name, detect in detectors.items()}
    for name, cases in (("bytes alone", stripped), ("with the file's declaration", files)):
        right = _share_right(cases, lambda body: find_charset(body, None))
        rows += [row(f"charset, {name}", f"share of {len(files)}", right, value, peer) for peer, value in theirs.items()]
    return rows


def _share_right(cases: Sequence[tuple[bytes, str]], detect: Callable[[bytes], str | None]) -> float:
    return mean(_decode(body, detect(body)) == body.decode(codec, "replace") for body, codec in cases)


def _decode(body: bytes, name: str | None) -> str | None:
    codec = CODECS.get(label_to_name(name) or "", name)
    try:
        return None if codec is None else body.decode(codec, "replace")
    except LookupError:
        return None


def choose(data: Path, limit: int) -> Sequence[dict[str, Any]]:
    """Pages: of those with the whole text known and of the others, evenly, half of `limit` each."""
    every = pages(data)
    known, others = [p for p in every if p.get("text")], [p for p in every if not p.get("text")]
    return [*sample(known, limit // 2), *sample(others, limit // 2)] if known else sample(others, limit)


def run(data: Path, limit: int = 200, repeat: int = REPEAT) -> list[Row]:
    """All rows. `limit`: of pages."""
    rows = extraction(choose(data, limit), repeat)
    if (data / "charset.jsonl.gz").is_file() and installed("cchardet", "charset_normalizer"):
        rows += charsets(data)
    return rows


if __name__ == "__main__":
    run_bench("extract", ABOUT, run)
