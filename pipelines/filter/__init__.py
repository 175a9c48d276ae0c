"""What is kept: URL, language and quality. Measures first, decisions after.

rules.py       every rule set by its published name        measures.py   every measure, defined, as a column
lines.py       C4's line rules                              refinedweb.py RefinedWeb's
bad_words.py   C4's lists                                   datatrove.py  any filter of datatrove as a stage
language.py    which language                               languages.py  what the rules know of each
url.py         lists and words of addresses (url_lists.py, hosts.py);  domains.py  domains by the rate of what they hold
kernels/       compiled functions over text                 data/         lists, bounds, tables, and their licences
"""

from importlib.resources import files


def read_data(name: str) -> str:
    """The text of a file in `data/`, also where the package lies in a zip (a wheel on a cluster)."""
    return files("pipelines.filter").joinpath("data", name).read_text("utf-8")
