"""Candidates are compared on texts that none has seen; a smaller one is the beginning of a larger one."""

import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipelines.__main__ import main
from pipelines.errors import UserError
from pipelines.report.candidates import print_candidates, write_candidates
from pipelines.rundir import write_json
from pipelines.tokens.candidates import Candidate, documents, extensions, presets, shortened, split
from pipelines.tokens.fit import fit
from pipelines.tokens.presets import TOKENIZER
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer

WORDS = {
    "en": ["the", "mill", "turns", "when", "water", "comes", "and", "gate", "is", "open"],
    "zh": ["\u6c34\u5230\u6e20\u6210", "\u78e8\u574a", "\uff0c"],
}


def texts(lang: str, count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    blank = " " if lang == "en" else ""
    return [blank.join("".join(draw.choices(WORDS[lang], k=3)) for _ in range(draw.randint(3, 40))) for _ in range(count)]


def table(*strata: tuple[str, str, int]) -> pa.Table:
    rows = [
        {"source": source, "lang": lang, "text": text}
        for source, lang, count in strata
        for text in texts(lang or "en", count, count)
    ]
    return pa.Table.from_pylist(rows)


RUN = pa.schema({"doc_id": pa.binary(), "source": pa.string(), "lang": pa.string(), "text": pa.string(), "words": pa.float64()})
SAMPLE = table(("books", "en", 40), ("web", "en", 60), ("web", "zh", 50))


@pytest.mark.parametrize("size", [263, 264, 280, 310, 400])
def test_a_smaller_vocabulary_is_the_beginning_of_a_larger_one(size: int) -> None:
    corpus = SAMPLE["text"].to_pylist()
    largest = train_tokenizer(corpus, TokenizerConfig(vocab_size=400, preset="llama3"))
    alone = train_tokenizer(corpus, TokenizerConfig(vocab_size=size, preset="llama3"))
    assert shortened(largest, size).to_str() == alone.to_str()


@pytest.mark.parametrize("extra", [1, 9, 30])
def test_so_it_is_with_an_extension(tmp_path: Path, extra: int) -> None:
    save(train_tokenizer(texts("en", 40, 40), TokenizerConfig(vocab_size=300)), tmp_path)
    fields: dict[str, Any] = {"base": str(tmp_path / TOKENIZER), "extend_on": ("zh",)}
    largest, made = fit(SAMPLE, TokenizerConfig(extra=30, **fields))
    assert made is not None
    alone, _ = fit(SAMPLE, TokenizerConfig(extra=extra, **fields))
    assert shortened(largest, made.base_size + made.special + extra).to_str() == alone.to_str()


@pytest.mark.parametrize(
    ("strata", "train", "held"),
    [
        ([("a", "en", 40)], 36, 4),
        ([("a", "en", 5)], 4, 1),
        ([("a", "en", 1)], 1, 1),  # it has to be both
        ([("a", "en", 40), ("b", "en", 5), ("b", "zh", 1)], 41, 6),
    ],
)
def test_a_tenth_of_each_kind_is_held_out(strata: list[tuple[str, str, int]], train: int, held: int) -> None:
    parts = split(table(*strata))
    assert [part.num_rows for part in parts] == [train, held]
    kinds = {(source, lang) for source, lang, _ in strata}
    assert {(r["source"], r["lang"]) for r in parts[1].to_pylist()} == kinds


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    folder = tmp_path_factory.mktemp("english")
    save(train_tokenizer(texts("en", 40, 40), TokenizerConfig(vocab_size=300)), folder)
    cfg = TokenizerConfig(base=str(folder / TOKENIZER), extra=20, extend_on=("zh",))
    trained = [c for p in ("gpt2", "llama3") for c in presets(SAMPLE, TokenizerConfig(preset=p, vocab_size=340), (300, 340))]
    return [*trained, *extensions(SAMPLE, cfg, (5, 20))]


def test_each_has_what_it_does_to_each_language(found: list[Candidate]) -> None:
    assert [c.entries for c in found] == [300, 340, 300, 340, 300, 305, 320]
    assert all(set(c.languages) == {"en", "zh"} and c.languages["en"].documents == 10 for c in found)
    assert all(c.whole.bytes == found[0].whole.bytes == sum(x.bytes for x in c.compression) for c in found)
    base, short, long = (c.languages for c in found[4:])
    assert base["en"].tokens == short["en"].tokens == long["en"].tokens
    assert base["zh"].tokens > short["zh"].tokens > long["zh"].tokens


def test_the_table_and_the_page_say_so(found: list[Candidate], tmp_path: Path) -> None:
    printed = io.StringIO()
    print_candidates(found, Console(width=160, file=printed))
    lines = [line.split() for line in printed.getvalue().splitlines()]
    wanted = [["llama3", "340", *(f"{found[3].languages[x].characters_per_token:.2f}" for x in ("en", "zh"))]]
    assert [line[:4] for line in lines if line[:2] == ["llama3", "340"]] == wanted
    write_candidates(found, tmp_path / "page.html", "Seven candidates on <b>this</b>.")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Seven candidates on &lt;b&gt;this&lt;/b&gt;." in page
    assert page.count("<svg") == 4  # two languages, wide and for a phone
    assert f"english0 + zh 320 {found[6].languages['zh'].characters_per_token:.2f}" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--presets", "bert"], "there is no tokenizer 'bert'; known are deepseek_llm, llama3, gpt2"),
        (["--sizes", "100"], "vocab_size 100 holds not even bytes"),
        (["--sizes", "many"], "invalid literal for int"),
        (["--guard", "none"], "guard 'none' is none of characters, sample"),
        (["--base", "nothing.json"], "tokenizer.base nothing.json: No such file or directory"),
        (["--presets", ""], "there is nothing to compare; give --presets, or a --base with --extend-on"),
    ],
)
def test_what_the_verb_cannot_do_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizers", "nowhere", *arguments]) == 1
    assert said in capsys.readouterr().err


# --- Spark ----------------------------------------------------------------------------------------------------------------


@pytest.mark.spark
def test_documents_of_files(spark: Any, tmp_path: Path) -> None:
    rows = [{"text": text, "lang": "en"} for text in texts("en", 3, 1)]
    (tmp_path / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows[:2]), tmp_path / "books.parquet")
    made = documents(spark, [tmp_path / "web.jsonl", tmp_path / "books.parquet"])
    got = [(row["source"], row["lang"], row["text"]) for row in made.collect()]
    assert sorted(got) == sorted([("web", "en", r["text"]) for r in rows] + [("books", "en", r["text"]) for r in rows[:2]])


@pytest.mark.spark
def test_documents_of_a_run_are_the_kept_ones_of_its_last_table(spark: Any, tmp_path: Path) -> None:
    steps = [{"directory": "00-read-a", "fingerprint": "a"}, {"directory": "01-near-b", "fingerprint": "b"}]
    write_json(tmp_path / "plan.json", {"recipe": "made", "steps": steps})
    for step, kept, dropped in zip(steps, (["a", "b", "c"], ["a"]), ([], ["b", "c"]), strict=True):
        for outcome, column in (("kept", kept), ("dropped", dropped)):
            (folder := tmp_path / step["directory"] / f"outcome={outcome}").mkdir(parents=True)
            rows = [{"doc_id": t.encode(), "source": "web", "lang": "en", "text": t, "words": 1.0} for t in column]
            pq.write_table(pa.Table.from_pylist(rows, RUN), folder / "part.parquet")
        write_json(tmp_path / step["directory"] / "manifest.json", {"recipe_fingerprint": step["fingerprint"]})
    assert [tuple(row) for row in documents(spark, [tmp_path]).collect()] == [(b"a", "web", "en", "a")]
    with pytest.raises(UserError, match="is a run; give one by itself"):
        documents(spark, [tmp_path, tmp_path])
    write_json(tmp_path / "plan.json", {"recipe": "made", "steps": []})
    with pytest.raises(UserError, match="is a run without a complete table"):
        documents(spark, [tmp_path])


@pytest.mark.spark
@pytest.mark.parametrize(
    ("names", "said"), [(["a/x.jsonl", "b/x.jsonl"], "have one name"), (["nothing.jsonl"], "nothing.jsonl")]
)
def test_files_that_cannot_be_sources(spark: Any, tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        documents(spark, [tmp_path / name for name in names])
