"""The shipped classifiers: human judgements beside datatrove's filters, held-out sites, speed beside fastText's library."""

from __future__ import annotations

import importlib.resources
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.common import About, Row, installed, interleave, quiet_datatrove, row, run_bench, speed_rows, version
from bench.corpus import jsonl, texts
from bench.filters import of_one_size, peer_all, peer_filters
from classifiers import fasttext_model, perplexity
from classifiers.data.compose import composed
from classifiers.evaluation import Interval, auc, evaluate
from classifiers.fit import FitConfig, fit
from classifiers.labelled import Labelled, labelled, site_share
from classifiers.model import Model, load, save, shipped

ABOUT = About(
    title="Classifiers",
    compared=(
        "`AUC`: chance that the better of two texts scores above the worse one, with its 95 % interval. Human judgements: "
        "English web texts judged worth training on or not (DCLM's, quality.jsonl.gz of the data folder; no model of ours has "
        "learned from them), `agreed` where the judges agreed; beside datatrove's Gopher repetition, Gopher quality, C4 and "
        "FineWeb filters in a row, which keep a text or drop it. Held-out topics and genres: those of the training texts "
        "written for the project that the model has not learned from; `card`: all of a model's held-out sites, from its card. "
        "`perplexity`: the same by the n-gram model. `speed`: documents of at most 6,700 bytes from Arrow to scores; `fasttext "
        "format`: one model, made in the run, by our reader and by fastText's own library, which gets the same texts without "
        "newlines. One core."
    ),
    peers=("datatrove", "fasttext-predict", "numba"),
)
REPEAT = 5
GOOD, BAD = "reference", "raw"


def between(interval: Interval) -> str:
    """The unit of a row of AUC."""
    return f"area, 95 % {interval.low:.3f} to {interval.high:.3f}"


def human(data: Path) -> list[Row]:
    """AUC on people's judgements; none where the data folder has them not."""
    path = data / "quality.jsonl.gz"
    if not path.is_file():
        return []
    lines, made = list(jsonl(path)), []
    for name, chosen in (("agreed", [line for line in lines if line["agreed"]]), ("all", lines)):
        judged = labelled([line["text"] for line in chosen], [GOOD if int(line["label"]) else BAD for line in chosen])
        hits = judged.numbers == judged.labels.index(GOOD)
        found = evaluate(load("quality"), judged)
        peer, who = None, None
        if installed("datatrove", "spacy"):
            quiet_datatrove()
            filters = peer_filters(filter_no_terminal_punct=False)
            kept = peer_all(filters, [(text, "en") for text in judged.texts.to_pylist()], True)
            peer, who = auc(np.array(kept, float), hits), f"{version('datatrove')}, chain"
        made.append(row(f"AUC, human judgements, {name} ({len(hits)})", between(found.auc), found.auc.value, peer, who))
        inverse = -np.nan_to_num(perplexity.load("perplexity-en").score(judged.texts), nan=np.inf)
        made.append(row(f"AUC of perplexity, human judgements, {name}", "area", auc(inverse, hits), peer, who))
    return made


def held_out(model: Model) -> Labelled:
    """Texts of the topics and genres that fell to the test split of the quality model."""
    split: Any = model.facts["split"]
    pages = [(t, label) for label in (GOOD, BAD) for lang in ("en", "zh") for t in composed(label, lang, 60)]
    some = [(t, label) for t, label in pages if site_share(t.site, split["seed"]) < split["test"]]
    return labelled([t.text for t, _ in some], [label for _, label in some], [t.site for t, _ in some])


def cards() -> list[Row]:
    """The AUC that stands in each card, on all of the model's held-out sites."""
    rows, folder = [], importlib.resources.files("classifiers") / "models"
    for name in shipped():
        for line in (folder / name / "card.md").read_text(encoding="utf-8").splitlines():
            if line.startswith("| AUC |"):
                value, interval = (part.strip() for part in line.strip("|").split("|")[1:])
                rows.append(row(f"AUC, held-out sites, {name} (card)", f"area, 95 % {interval}", float(value), None, None))
    return rows


def speed(documents: Sequence[str], repeat: int) -> list[Row]:
    """Documents a second of the shipped model, and of a fastText model by our reader and by the library."""
    array, flat = pa.array(documents, pa.large_string()), [" ".join(text.split("\n")) for text in documents]
    with tempfile.TemporaryDirectory() as folder:
        pages = [(t, label) for label in (GOOD, BAD) for t in composed(label, "en", 20)]
        data = labelled([t.text for t, _ in pages], [label for _, label in pages], [t.site for t, _ in pages])
        model = fit(data, FitConfig(fasttext_model.Config(), validation=0.2, test=0.2))
        save(model, Path(folder))
        ours, quality, perplex = load(folder), load("quality"), perplexity.load("perplexity-en")
        contestants: dict[str, Callable[[], Any]] = {
            "quality": lambda: quality.scores(array),
            "perplexity": lambda: perplex.score(array),
            "ours": lambda: ours.logits(array),
        }
        peer = version("fasttext-predict")
        if installed("fasttext"):
            import fasttext

            library = fasttext.load_model(f"{folder}/model.bin").f
            contestants[peer] = lambda: [library.predict(text + "\n", 2, 0.0, "strict") for text in flat]
        for warm_up in contestants.values():
            warm_up()
        seconds, results = interleave(contestants, repeat)
    unit = f"docs/s of {sum(len(t.encode()) for t in documents) / len(documents):,.0f} bytes"
    rows = [
        *speed_rows("speed, quality", unit, len(documents), {"quality": seconds["quality"]}, "quality"),
        *speed_rows("speed, perplexity", unit, len(documents), {"perplexity": seconds["perplexity"]}, "perplexity"),
        *speed_rows(
            "speed, fasttext format", unit, len(documents), {n: seconds[n] for n in ("ours", peer) if n in seconds}, "ours"
        ),
    ]
    if peer in results:
        rows.append(
            row("same probabilities, fasttext format", "largest difference", _apart(ours, flat, results[peer]), None, None)
        )
    return rows


def _apart(ours: Model, flat: Sequence[str], found: Any) -> float:
    """How far the library's probabilities are from ours at most; it adds 1e-5 to each before it takes the logarithm."""
    mine = np.exp(ours.logits(pa.array(flat, pa.large_string())).astype(np.float64))
    mine /= mine.sum(1, keepdims=True)
    return max(
        abs(float(p) - 1e-5 - float(mine[i, ours.labels.index(label.removeprefix("__label__"))]))
        for i, opinions in enumerate(found)
        for p, label in opinions
    )


def run(data: Path, limit: int = 400, repeat: int = REPEAT) -> list[Row]:
    """All rows. `limit`: of texts whose speed is measured."""
    model = load("quality")
    found = evaluate(model, held_out(model))
    size = sum(path.stat().st_size for path in Path(str(importlib.resources.files("classifiers") / "models")).rglob("*.npz"))
    return [
        *human(data),
        row(f"AUC, held-out topics and genres ({found.sites})", between(found.auc), found.auc.value, None, None),
        *cards(),
        *speed([text for text, _ in of_one_size(texts(data), limit)], repeat),
        row("size of all shipped models", "MB", size / 1e6, None, None),
    ]


if __name__ == "__main__":
    run_bench("classifiers", ABOUT, run)
