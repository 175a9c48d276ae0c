"""Two kinds of made pages, on many sites, and models of them, made once."""

import json
import random
from pathlib import Path

import pytest

from classifiers import fasttext_model, hashed
from classifiers.fit import FitConfig, fit
from classifiers.labelled import Labelled, labelled, split
from classifiers.model import Model, load, save


def words(text: str) -> list[str]:
    return text.split()


PROSE = words("the river was quiet in that season and we walked along its banks until evening came over the fields")
OFFER = words("buy cheap now free shipping best price deal offer discount sale order today limited stock click here")
BOTH = words("of a to is it for this page with more day home water people")


def page(label: str, seed: int, longest: int = 24) -> str:
    """Words of the label and of both, one in nine from the other: not to be told apart without error."""
    rng = random.Random(f"{label} {seed}")
    own, other = (PROSE, OFFER) if label == "good" else (OFFER, PROSE)
    return " ".join(rng.choice(rng.choices((own, other, BOTH), (4, 1, 4))[0]) for _ in range(rng.randint(3, longest))) + "."


def rows(sites: int = 240) -> list[dict[str, str]]:
    """One or two pages a site."""
    return [
        {"text": page(label, 10 * n + k), "label": label, "url": f"https://www.site{n}.example/{k}", "lang": "en"}
        for n in range(sites)
        for k, label in enumerate((("good",), ("bad",), ("good", "bad"))[n % 3])
    ]


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """The rows in a file."""
    path = tmp_path / "pages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def data() -> Labelled:
    return labelled(*([row[name] for row in rows()] for name in ("text", "label", "url", "lang")))


@pytest.fixture(scope="session")
def parts(data: Labelled) -> tuple[Labelled, Labelled, Labelled]:
    return split(data, validation=0.3, test=0.3)


@pytest.fixture(scope="session", params=["hashed", "fasttext"])
def model(request: pytest.FixtureRequest, data: Labelled, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of each linear kind, saved and loaded."""
    kind = {"hashed": hashed.Config(bits=12), "fasttext": fasttext_model.Config(dim=4, buckets=2000)}[request.param]
    made = fit(data, FitConfig(kind, label="good", precision=0.8, validation=0.3, test=0.3))
    folder = tmp_path_factory.mktemp(request.param)
    save(made, folder)
    return load(folder)
