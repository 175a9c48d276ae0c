"""The walls: who may import whom, and from where the packages come."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CURATE_ONLY = {"pyspark", "trafilatura", "resiliparse", "fastwarc", "datasketch", "fasttext", "phonenumbers"}
TRAIN_ONLY = {"torch", "accelerate"}
DEV_ONLY = {"datatrove", "pytest", "nbclient"}


def python(code: str, cwd: Path, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules_of(package: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in files]
    return [n for n in names if not n.endswith("__main__")]


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("pipelines", TRAIN_ONLY | DEV_ONLY),
        ("trainer", CURATE_ONLY | DEV_ONLY | {"pydantic", "typer", "pandas"}),
        ("classifiers", TRAIN_ONLY | DEV_ONLY | {"pyspark", "pipelines", "trainer"}),
    ],
)
def test_each_package_imports_with_only_its_own_extra(package: str, absent: set[str], tmp_path: Path) -> None:
    """Every module of the package is imported by a Python in which the other extras do not exist."""
    code = f"""
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(absent)!r}:
            raise ModuleNotFoundError(f"{{name}} is not part of this extra", name=name)

sys.meta_path.insert(0, Absent())
for name in {modules_of(package)!r}:
    importlib.import_module(name)
print(sorted({sorted(absent)!r} & sys.modules.keys()))
"""
    # the module-level `except ImportError` of a third party may hide a refusal; what counts is that ours come up
    assert python(code, tmp_path).strip() == "[]"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("trainer.train", "pyspark"),
        ("pipelines.run", "torch"),
        ("pipelines.shards", "pyspark"),
        ("pipelines.schedule", "pyspark"),
        ("pipelines.__main__", "pyspark"),
    ],
)
def test_an_import_loads_no_more_than_it_needs(module: str, absent: str, tmp_path: Path) -> None:
    assert python(f"import sys, {module}; print({absent!r} in sys.modules)", tmp_path).strip() == "False"


def test_the_packages_resolve_into_this_repository(tmp_path: Path) -> None:
    code = "import pipelines, classifiers, trainer; print(*(p.__path__[0] for p in (pipelines, classifiers, trainer)))"
    assert python(code, tmp_path).split() == [str(ROOT / n) for n in ("pipelines", "classifiers", "trainer")]


def test_tests_are_no_package_and_no_module_shadows_the_standard_library() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert not [p for p in ROOT.glob("[!.]*/**/tokenize.py")]
