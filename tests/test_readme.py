"""The README tells the truth: its tree is the tree, its verbs exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = README.split("## The tree")[1].split("```")[1]


def listed() -> set[str]:
    paths, folder = set(), ""
    for line in TREE.strip().splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name
        paths.add(name if name == folder else folder + name)
    return paths


def test_every_file_of_the_tree_exists() -> None:
    assert [p for p in listed() if not (ROOT / p).exists()] == []


def test_every_module_stands_in_the_tree() -> None:
    modules = {p.relative_to(ROOT) for package in ("pipelines", "classifiers", "trainer") for p in (ROOT / package).iterdir()}
    shown = {str(p) + ("/" if (ROOT / p).is_dir() else "") for p in modules if p.name not in ("__init__.py", "__pycache__")}
    assert {p for p in shown if p.endswith((".py", "/"))} == {p for p in listed() if p.count("/") - p.endswith("/") == 1}


@pytest.mark.parametrize("verb", sorted(set(re.findall(r"python -m pipelines (\w+)", README))))
def test_every_verb_has_a_help_with_an_example(verb: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", verb, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert f"python -m pipelines {verb}" in done.stdout


def test_every_make_target_of_the_documents_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    documents = README + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", documents, re.M))
    assert {"demo", "test"} <= named
    assert [t for t in named if not re.search(rf"^{t}:", makefile, re.M)] == []
