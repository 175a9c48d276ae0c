"""A model's folder: `model.json` says what the payload beside it is; nothing in either is ever executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from classifiers.errors import ModelError

FORMAT = 1
HEADER, CARD = "model.json", "card.md"


def shipped() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    folder = files("classifiers") / "models"
    return tuple(sorted(e.name for e in folder.iterdir() if (e / HEADER).is_file())) if folder.is_dir() else ()


def find(source: str | Path) -> Traversable:
    """A model's folder or file by its path, else a shipped model by its name; a folder `code` of programs is not in its way.

    Raises ModelError where there is neither.
    """
    path, known = Path(source), shipped()
    if path.is_file() or (path / HEADER).is_file() or (path.is_dir() and str(source) not in known):
        return path
    if str(source) not in known:
        raise ModelError(
            f"there is no model {str(source)!r}; give the path of one, or a shipped name: {', '.join(known) or 'none'}"
        )
    return files("classifiers") / "models" / str(source)


def kind(path: Traversable) -> str:
    """The kind that a folder's header names; "" where there is none."""
    try:
        return str(json.loads((path / HEADER).read_bytes())["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read(folder: Traversable, payloads: Mapping[str, str]) -> tuple[dict[str, Any], bytes, str]:
    """Header, payload and fingerprint of the model in a folder. `payloads`: name of the payload of each kind that is meant.

    The fingerprint is the SHA-256 of the header, which holds that of the payload. Raises ModelError where a file is missing or
    damaged, or the model is of another format or kind.
    """
    head = _read(folder, HEADER)
    try:
        said = json.loads(head)
        version, kind, expected = said["format"], str(said["kind"]), said["payload"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{HEADER} in {str(folder)!r} is damaged ({error}); make the model again") from error
    if version != FORMAT or kind not in payloads:
        raise ModelError(
            f"{str(folder)!r} is a model of kind {kind!r} and format {version!r}; here format {FORMAT} of kind "
            f"{', '.join(payloads)} is read: give such a model, or make it again"
        )
    payload = _read(folder, payloads[kind])
    if (found := hashlib.sha256(payload).hexdigest()) != expected:
        raise ModelError(
            f"{payloads[kind]} in {str(folder)!r} is damaged: its SHA-256 is {found[:12]}, its header says "
            f"{str(expected)[:12]}; fetch it again"
        )
    return said, payload, hashlib.sha256(head).hexdigest()


def write(folder: Path, kind: str, name: str, payload: bytes, facts: Mapping[str, Any], card: str = "") -> str:
    """Write a folder, the header last; returns its fingerprint. The same model gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HEADER).unlink(missing_ok=True)
    (folder / name).write_bytes(payload)
    if card:
        (folder / CARD).write_text(card, encoding="utf-8")
    about = {"file": name, "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    header = {"format": FORMAT, "kind": kind, "payload": about, **facts}
    head = (json.dumps(header, indent=1, sort_keys=True) + "\n").encode()
    (folder / HEADER).write_bytes(head)
    return hashlib.sha256(head).hexdigest()


def _read(folder: Traversable, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ModelError(f"{str(folder)!r} is no model: it has no {name}; give the folder that was written as one") from error
