"""python -m classifiers: what is typed, what comes back."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifiers.__main__ import main
from classifiers.model import Model, load, save

FIT = ("--kind", "hashed", "--set", "bits=10", "--label", "good", "--validation", "0.3", "--test", "0.3")


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and what was shown, with its lines joined."""
    code = main([str(word) for word in words])
    return code, " ".join(capsys.readouterr().err.split())


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    save(model, tmp_path / "model")
    return tmp_path / "model"


def test_fit_evaluate_predict(pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = run(capsys, "fit", pages, "--out", tmp_path / "m", *FIT, "--precision", "0.8", "--licence", "CC0")
    assert code == 0
    assert "320 texts of 240 sites: bad 160, good 160" in shown
    assert "95 % interval" in shown
    card = (tmp_path / "m" / "card.md").read_text()
    assert f"python -m classifiers fit {pages}" in card
    assert "Licence: CC0" in card
    assert load(tmp_path / "m").facts["threshold"]["by"] == "precision 0.8"

    code, shown = run(capsys, "evaluate", tmp_path / "m", pages)
    assert (code, "good at" in shown, "AUC" in shown) == (0, True, True)
    assert "the model was made of these texts: those of its test sites count, no others" in shown
    other = tmp_path / "other.jsonl"
    other.write_text("".join(pages.read_text().splitlines(keepends=True)[:100]))
    code, shown = run(capsys, "evaluate", tmp_path / "m", other)
    assert (code, "made of these texts" in shown, "100 texts of" in shown) == (0, False, True)

    assert main(["predict", str(tmp_path / "m"), str(pages)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    given = [json.loads(line) for line in pages.read_text().splitlines()]
    assert [line["url"] for line in lines] == [row["url"] for row in given]
    assert np.mean([line["label"] == row["label"] for line, row in zip(lines, given, strict=True)]) > 0.8


@pytest.mark.parametrize("form", ["jsonl", "parquet", "txt"])
def test_every_row_is_answered(folder: Path, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["the river was quiet in that season", "", "le fleuve \u00e9tait calme et nous marchions le long de ses rives"]
    path = tmp_path / f"given.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps({"body": t, "id": n}) + "\n" for n, t in enumerate(texts)))
    elif form == "parquet":
        pq.write_table(pa.table({"body": [t or None for t in texts], "id": [0, 1, 2]}), path)
    else:
        path.write_text("\n".join(texts) + "\n")
    code, shown = run(capsys, "predict", folder, path, "--text", "body", "--out", tmp_path / "out.jsonl")
    assert code == 0
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["label"] for row in found][:2] == ["good", "und"]
    assert (found[1]["score"], found[1]["scores"], found[1]["taken"]) == (None, None, False)
    assert [row["seen"] for row in found] == [True, False, False]
    assert found[0]["score"] == pytest.approx(found[0]["scores"]["good"])
    assert "in languages that the model never saw (seen: false): fr 1" in shown
    assert form == "txt" or [row["id"] for row in found] == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "nowhere", "PAGES"), "there is no model 'nowhere'"),
        (("predict", "MODEL", "none.jsonl"), "there is no file 'none.jsonl'"),
        (("predict", "MODEL", "PAGES", "--text", "body"), "line 1 of .* has no 'body' .*; give --text, or mend the file"),
        (("predict", "MODEL", "PAGES", "--label", "ugly"), "the model has no label 'ugly'; it has bad, good"),
        (
            ("fit", "PAGES", "--out", "OUT", *FIT, "--label", "ugly"),
            "there is no label 'ugly' to choose a threshold for; there are bad, good",
        ),
        (
            ("fit", "PAGES", "--out", "OUT", "--set", "dimm=3"),
            "--set dimm=3: fasttext has no setting 'dimm'; it has dim, words",
        ),
        (("fit", "PAGES", "--out", "OUT", "--set", "dim=x"), "--set dim=x: dim is of type int"),
        (("fit", "PAGES", "--out", "OUT", "--set", "dim=0"), "dim must be 1 to 1024"),
        (
            ("fit", "PAGES", "--out", "OUT", "--validation", "0.6", "--test", "0.6"),
            "validation is 0.6 and test 0.6; both above 0",
        ),
        (
            ("fit", "PAGES", "--out", "OUT", "--precision", "7"),
            "precision is 7.0 and share 0.0; give one of them, between 0 and 1",
        ),
        (("fit", "PAGES", "--out", "OUT", "--label-field", "lang"), "have the one label 'en'"),
    ],
)
def test_what_can_be_mended_is_said_in_a_line(
    words: tuple[str, ...], message: str, folder: Path, pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"PAGES": str(pages), "MODEL": str(folder), "OUT": str(tmp_path / "out")}
    assert main([names.get(word, word) for word in words]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert re.search(message, lines[-1])


def test_contradicting_labels_are_refused_unless_a_rule_is_given(
    pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.loads(pages.read_text().splitlines()[0])
    pages.write_text(pages.read_text() + json.dumps({**row, "label": "bad"}) + "\n")
    code, shown = run(capsys, "fit", pages, "--out", tmp_path / "m", *FIT)
    assert code == 1
    assert "1 of 320 texts have several labels, the first (bad, good)" in shown
    code, shown = run(capsys, "fit", pages, "--out", tmp_path / "m", *FIT, "--conflicts", "drop")
    assert code == 0
    assert "left out or resolved: 1 repeated, 1 with several labels" in shown
    assert "1 with several labels (drop)" in (tmp_path / "m" / "card.md").read_text()


@pytest.mark.parametrize(("letters", "said"), [("0,0", True), ("1,3", False)])
def test_words_between_blanks_are_too_little_for_chinese(
    letters: str, said: bool, pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages.write_text(pages.read_text().replace('"lang": "en"', '"lang": "zh"'))
    kind = ("--set", "dim=2", "--set", "buckets=100", "--set", f"letters={letters}")
    code, shown = run(capsys, "fit", pages, "--out", tmp_path / "m", *kind, "--validation", "0.3", "--test", "0.3")
    assert code == 0
    assert ("texts in zh have no blanks between words: give --set letters=1,3, or --kind hashed" in shown) is said


def test_perplexity_is_learned_and_predicted(pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("perplexity", pages, "--lang", "en", "--reference", pages, "--out", tmp_path / "p", "--set", "order=2")
    code, shown = run(capsys, *words)
    assert (code, "head to" in shown) == (0, True)
    assert "python -m classifiers perplexity" in (tmp_path / "p" / "card.md").read_text()
    (tmp_path / "new.txt").write_text("the river was quiet\n\nqu'est-ce que c'est que cette histoire\n")
    assert main(["predict", str(tmp_path / "p"), str(tmp_path / "new.txt")]) == 0
    captured = capsys.readouterr()
    first, empty, foreign = (json.loads(line) for line in captured.out.splitlines())
    assert (first["lang"], first["seen"], foreign["seen"]) == ("en", True, False)
    assert (empty["perplexity"], empty["bucket"]) == (None, "und")
    assert first["perplexity"] < foreign["perplexity"]
    assert "bucket" in captured.err


def test_the_threshold_is_of_its_label(model: Model) -> None:
    assert model.bound() == model.bound("good") == model.threshold
    assert model.bound("bad") == 0.5


@pytest.mark.parametrize("verb", ["", "fit", "evaluate", "predict", "perplexity"])
def test_help_is_short(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([*([verb] if verb else []), "--help"])
    assert done.value.code == 0
    assert 5 < len(capsys.readouterr().out.splitlines()) < 50
