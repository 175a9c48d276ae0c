"""The model card (Mitchell et al., arXiv 1810.03993): what a model is, from what, how good, and what makes it again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from classifiers.evaluation import Evaluation, Group, Interval
from classifiers.model import Model
from classifiers.perplexity import Perplexity

_KINDS = {
    "fasttext": "fastText classifier (arXiv 1607.01759)",
    "hashed": "logistic regression on hashed n-grams and measures of the text",
    "encoder": "transformer encoder",
}


@dataclass(frozen=True)
class CardConfig:
    """What the tool cannot know. `licence`: of the data and of the model; `use`: what it is meant for, and what not."""

    name: str
    use: str = "Not stated."
    licence: str = "Not stated."
    command: str = ""


def card(model: Model, found: Evaluation, about: CardConfig) -> str:
    """A model's card, in Markdown; it depends on nothing else, so that the same model has the same card."""
    facts = model.facts
    data, split, chosen = facts.get("data", {}), facts.get("split", {}), facts.get("threshold", {})
    sizes = split.get("sizes", {})
    lines = [
        f"# {about.name}",
        "",
        f"A {_KINDS[model.kind]} with the labels {', '.join(f'`{label}`' for label in model.labels)}.",
        "",
        "## Use",
        about.use,
        "",
        f"`{found.label}` is what scores at or above {found.threshold:.4f} ({chosen.get('by', 'given')}). Scores are "
        "probabilities as of the validation split: where the labels are mixed otherwise, they are off. Texts without a token "
        "have no score (NaN, `und`).",
        "",
        "## Data",
        f"{data.get('texts', 0):,} texts from {', '.join(data.get('files', ())) or 'memory'}; "
        f"fingerprint `{data.get('fingerprint', '')[:16]}`. Left out: {data.get('empty', 0):,} empty, "
        f"{data.get('repeated', 0):,} repeated; {data.get('contradicting', 0):,} with several labels "
        f"({data.get('conflicts', 'refuse')}).",
        f"Licence: {about.licence}",
        "",
        *_table(
            ("split", "sites", *model.labels),
            [
                (name, f"{s['sites']:,}", *(f"{s['texts'].get(label, 0):,}" for label in model.labels))
                for name, s in sizes.items()
            ],
        ),
        "",
        f"No site is in two splits. Languages of the training texts: {_languages(facts.get('languages', {}))}.",
        "",
        f"## Figures: `{found.label}` on {found.texts:,} texts of {found.sites:,} held-out sites",
        *_table(("figure", "value", "95 % interval"), [(n, f"{i.value:.3f}", _between(i)) for n, i in figures(found)]),
        "",
        "Intervals resample whole sites.",
        "",
        "### By language",
        *_groups(found.by_language),
        "",
        "### By length (characters)",
        *_groups(found.by_length),
        "",
        "### Confusion (rows: given, columns: likeliest)",
        *_table(
            ("", *found.labels),
            [(n, *map(str, row)) for n, row in zip(found.labels, found.confusion, strict=True) if sum(row)],
        ),
        "",
        "### Reliability",
        *_table(
            ("mean score", f"share `{found.label}`", "texts"),
            [(f"{s:.3f}", f"{w:.3f}", f"{n}") for s, w, n in found.reliability],
        ),
        "",
        "## Made by",
        *(["```", about.command, "```", ""] if about.command else []),
        f"Settings: `{model.kind}` {', '.join(f'{k}={v}' for k, v in asdict(model.payload.config).items())}; "
        f"seed {split.get('seed', 0)}, class weights {split.get('class_weights', 'none')}.",
        "",
    ]
    return "\n".join(lines)


def perplexity_card(model: Perplexity, name: str, texts: int, reference: int, command: str) -> str:
    """The card of a perplexity model: what it learned from, and where its buckets end."""
    cfg, (head, middle) = model.config, model.cuts
    return f"""# {name}

An n-gram model (order {cfg.order}, Kneser-Ney) of texts in `{cfg.lang}`: perplexity a token, and buckets as in CCNet.

{texts:,} texts with {model.facts["tokens"]:,} tokens, {model.facts["known"]:,} known tokens. Of {reference:,} reference
texts 30 % are in head (up to {head:,.1f}), 30 % in middle (up to {middle:,.1f}), the others in tail; without a token: `und`.

## Made by
```
{command}
```
"""


def figures(found: Evaluation) -> tuple[tuple[str, Interval], ...]:
    """The figures of an evaluation by name."""
    return (
        ("AUC", found.auc),
        ("precision", found.precision),
        ("recall", found.recall),
        ("kept share", found.kept),
        ("calibration error (ECE)", found.error),
        ("accuracy, all labels", found.accuracy),
    )


def _between(interval: Interval) -> str:
    return "too few sites" if interval.low != interval.low else f"{interval.low:.3f} to {interval.high:.3f}"


def _languages(counts: dict[str, int]) -> str:
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = f", and {len(most) - 12} more" if len(most) > 12 else ""
    return ", ".join(f"{lang} {n:,}" for lang, n in most[:12]) + rest or "not known"


def _groups(groups: Iterable[Group]) -> list[str]:
    rows = [
        (
            g.name + ("" if g.seen else " (never seen)"),
            f"{g.texts:,}",
            str(g.hits),
            str(g.missed),
            str(g.false),
            str(g.right),
            ratio(g.auc),
        )
        for g in groups
    ]
    return _table(("", "texts", "hits", "missed", "false", "right", "AUC"), rows)


def ratio(value: float) -> str:
    """A ratio to three places; a dash for NaN."""
    return "-" if value != value else f"{value:.3f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
