"""Published settings of MinHash, by name and by bands x rows, each with its source.

They say how many bands of how many rows over which shingles. Cleaning before that (digits to zero, punctuation, tokenizers) is
each system's own and not imitated: shingles here are those of shingles.py. Characters are word characters.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Setting(NamedTuple):
    """`bands` of `rows` over n-grams of `ngram` units (see shingles.py for `unit`), and where that is published."""

    bands: int
    rows: int
    ngram: int
    unit: Literal["auto", "word", "char"]
    source: str


# "auto" where the source speaks of words or tokens: a splitter of words says nothing about scripts without blanks
SETTINGS: dict[str, Setting] = {
    "fineweb": Setting(14, 8, 5, "auto", "Penedo et al. 2024 (FineWeb), appendix E.1; datatrove's defaults; aimed at .75"),
    "nemo": Setting(20, 13, 24, "char", "NVIDIA NeMo Curator, defaults of its fuzzy deduplication workflow"),
    "dolma3": Setting(26, 11, 5, "auto", "Olmo 3 report, appendix A.2.2: 5-grams of p50k tokens, aimed at .80"),
    "marin": Setting(26, 11, 5, "char", "marin, defaults of its minhash_lsh: character shingles of 5, Olmo 3's bands"),
    "redpajama2-0.7": Setting(14, 9, 13, "auto", "RedPajama-Data v2: 13-grams, datasketch's optimum of 128 values at .7"),
    "redpajama2-0.8": Setting(9, 13, 13, "auto", "RedPajama-Data v2: 13-grams, datasketch's optimum of 128 values at .8"),
    "bigcode": Setting(25, 10, 5, "auto", "BigCode near_deduplication: 5-grams, datasketch's optimum of 256 values at .7"),
    "refinedweb": Setting(450, 20, 5, "auto", "Penedo et al. 2023 (RefinedWeb), appendix G.3.1, after Lee et al. 2021; .8"),
    "dclm": Setting(93, 15, 5, "auto", "Li et al. 2024 (DCLM), ablations: 1,395 values in place of RefinedWeb's 9,000"),
    "duplodocus": Setting(20, 5, 5, "auto", "allenai/duplodocus, defaults of its command line"),
}


def setting(name: str) -> Setting:
    """A published setting by its name, or by bands x rows ("26x11"). Raises ValueError that lists the known ones."""
    if name in SETTINGS:
        return SETTINGS[name]
    for known in SETTINGS.values():
        if name == f"{known.bands}x{known.rows}":
            return known
    names = ", ".join(f"{key} ({s.bands}x{s.rows})" for key, s in SETTINGS.items())
    raise ValueError(f"there is no published MinHash setting {name!r}; known are {names}; or set bands and rows")
