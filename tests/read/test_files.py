from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.read.files import list_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.warc", "b.warc.gz", "sub/c.warc", "_SUCCESS", ".hidden", "sub/_x/d.warc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ("a.warc", ["a.warc"]),
        ("*.warc*", ["a.warc", "b.warc.gz"]),
        ("", ["a.warc", "b.warc.gz", "sub/c.warc"]),
        ("**/c.*", ["sub/c.warc"]),
        (("b.warc.gz", "a.warc", "*.warc"), ["a.warc", "b.warc.gz"]),
        ("_SUCCESS", ["_SUCCESS"]),
    ],
)
def test_files_folders_and_globs(folder: Path, paths: str | tuple[str, ...], names: list[str]) -> None:
    given = str(folder / paths) if isinstance(paths, str) else tuple(str(folder / p) for p in paths)
    files = list_files(given)
    assert [f["path"] for f in files] == [str(folder / n) for n in names]
    assert all(f["bytes"] == 5 and f["mtime_ns"] == Path(f["path"]).stat().st_mtime_ns for f in files)


def test_addresses_go_through_fsspec(folder: Path) -> None:
    assert [f["path"] for f in list_files(f"file://{folder}/*.warc")] == [f"file://{folder}/a.warc"]


@pytest.mark.parametrize("path", ["none.warc", "none*", "empty", "file://{}/none*"])
def test_a_path_without_a_match_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    given = path.format(tmp_path) if "{}" in path else str(tmp_path / path)
    with pytest.raises(UserError, match=r"matches no file.*mend the path"):
        list_files((given,))
