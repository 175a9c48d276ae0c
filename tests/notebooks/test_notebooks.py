"""The notebooks run from top to bottom on examples/, with the Python that runs the tests, and are committed without outputs."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGE, RUN = "01_a_page_becomes_text", "02_a_run_and_its_ledger"


def read(name: str) -> Any:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def execute(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> list[str]:
    """What each code cell shows (streams and plain text), run in `folder`; `more` are cells after the last."""
    # a kernel of this very Python, whatever kernels and settings the machine knows
    for variable, part in (("IPYTHONDIR", "ipython"), ("JUPYTER_RUNTIME_DIR", "runtime"), ("JUPYTER_CONFIG_DIR", "config")):
        monkeypatch.setenv(variable, str(folder / part))
    monkeypatch.setenv("JUPYTER_PATH", str(folder))
    write_kernel_spec(folder / "kernels" / "walk")
    notebook = read(name)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in more]
    (folder / "work").mkdir()
    NotebookClient(notebook, kernel_name="walk", timeout=280, resources={"metadata": {"path": str(folder / "work")}}).execute()
    return ["".join(map(shown, cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"]


def shown(output: Any) -> str:
    return str(output.text if output.output_type == "stream" else output.data.get("text/plain", ""))


def test_both_notebooks_are_there() -> None:
    assert [n.stem for n in NOTEBOOKS] == [PAGE, RUN]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_holds_no_outputs_and_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert not cell.metadata, f"{cell.id}: {cell.metadata}"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert not re.search(r"/(?:home|root|Users|work|tmp|mnt)/|[A-Z]:\\\\", path.read_text("utf-8"))


@pytest.mark.slow
def test_a_page_becomes_text_without_a_jvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = "import sys; print([name for name in ('pyspark', 'torch') if name in sys.modules])"
    shows = execute(PAGE, tmp_path, monkeypatch, loaded)
    everything = "\n".join(shows)
    assert "Write to <email> or call <phone>" in everything
    assert "its gateway 192.168.0.1, its software version 11.2.0.22" in everything
    assert "exact Jaccard similarity: 0.95" in everything
    kept = re.search(r"kept (\d+) before, (\d+) now", everything)
    assert kept is not None
    assert int(kept[1]) > int(kept[2]) > 0
    assert shows[-1].strip() == "[]"


@pytest.mark.slow
@pytest.mark.spark
def test_a_run_and_its_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shows = execute(RUN, tmp_path, monkeypatch)
    out = tmp_path / "work" / "out" / "notebook-02"
    assert (out / "report.html").is_file()
    runs = [text for text in shows if "shards:" in text]
    assert ["starting Spark" in text for text in runs] == [True, True, False]  # a new mixture needs no Spark
    assert re.findall(r"(\d\d-[a-z_]+)-\w+: complete, skipped", runs[1]) == ["00-extract"]
    assert any("allowed are" in text for text in shows)  # the cap that is refused
    assert any("WARC/1.1" in text for text in shows)  # a training step traced to the bytes of the crawl
    steps = re.fullmatch(r"\[(\d+(?:, \d+)*)\]", shows[-1].strip())
    assert steps is not None
    assert "7" in steps[1].split(", ")
