"""Calibration: what counts as clean text, which rule breaks how much of it, and what bound is proposed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from bench import calibrate
from bench.common import EXAMPLES
from pipelines.filter.rules import all_rules


def write_lid(data: Path) -> None:
    """Twenty sentences in a language, one of which is a row of numbers, and a guide."""
    lines = [
        {"lang": "de", "kind": "sentence", "text": f"Der Satz Nummer {i} ist von anderen Tagen und nicht lang."}
        for i in range(20)
    ]
    lines[3]["text"] = " ".join(map(str, range(200)))
    lines.append({"lang": "fr", "kind": "page", "text": "Installez le paquet."})
    (data / "lid.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


def test_calibration_joins_sentences_to_documents(tmp_path: Path) -> None:
    write_lid(tmp_path)
    found = list(calibrate.prose(tmp_path))
    assert [(d.lang, d.kind) for d in found] == [("fr", "guide"), *[("de", "sentences")] * 4]  # 2 of 10, one of 15, one of 20
    assert [d.text.count("\n\n") for d in found[1:]] == [0, 1, 0, 0]  # in one line and in paragraphs of five by turns
    assert found[1].text.count("Satz") + found[2].text.count("Satz") == 19


def test_calibration_tells_which_rule_breaks_what(tmp_path: Path) -> None:
    write_lid(tmp_path)
    documents = list(calibrate.prose(tmp_path))
    measured = calibrate.values_of(documents)
    quality = calibrate.SETS["gopher_quality"]
    broken = {(b.lang, b.rule): b for b in calibrate.broken_rules(all_rules(quality), documents, measured)}
    numbers = broken["de", "gopher_quality.min_alpha_words"]
    assert (numbers.broken, numbers.documents, numbers.share, numbers.bound) == (3, 4, 0.75, 0.774)  # all but the second half
    assert broken["fr", "gopher_quality.min_words"].share == 1.0
    assert calibrate.kept(quality, measured).tolist() == [False, False, True, False, False]


def test_calibration_proposes_a_bound_that_the_text_keeps_to() -> None:
    plain = "Der Satz ist von anderen Tagen und nicht lang. " * 12
    odd = calibrate.Clean("de", "sentences", plain + " ".join(map(str, range(60))))
    documents = [*[calibrate.Clean("de", "sentences", plain)] * 19, odd]
    of_rule = [
        line.split("\t") for line in calibrate.proposals(documents, calibrate.values_of(documents)) if "min_alpha" in line
    ]
    [(lang, rule, bound, why)] = of_rule
    assert (lang, rule, why) == ("de", "min_alpha_words", "0.050 of 20 sentences broke 0.774")
    assert 0.5 < float(bound) < 0.774


def test_the_examples_are_enough_to_run() -> None:
    rows, behind = calibrate.run(EXAMPLES)
    assert {"pages kept, web, English", "pages kept, fineweb2, other languages", "prose kept, web"} <= {r.name for r in rows}
    assert min(r.ours for r in rows if r.name.startswith("pages kept, web")) >= 0.95
    assert behind["prose, web"]["kept"].keys() == {"en"}
