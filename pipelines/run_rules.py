"""The rules of a finished run, as its plan describes them, and the same rules with settings changed."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipelines.errors import UserError
from pipelines.filter.rules import Rule, RulesConfig


def stored_config(stored: dict[str, Any]) -> RulesConfig:
    """The RulesConfig that plan.json describes. A rule that it does not name was not there when the run was made: it is off.

    Raises UserError for a set or a rule that this version does not have.
    """
    types = set_types()
    off = dict.fromkeys(types)
    made = {name: _made(types[name], value) for name, value in stored.items() if name in types and value is not None}
    extra = tuple(_made(Rule, rule) for rule in stored["extra"])
    return _made(RulesConfig, {**off, **stored, **made, "extra": extra})  # type: ignore[no-any-return]


def _made(kind: type[Any], stored: dict[str, Any]) -> Any:
    """A config of a class from its stored fields; rules of a set that are not among them are off."""
    fields = {f.name for f in dataclasses.fields(kind)}
    if unknown := stored.keys() - fields:
        raise UserError(f"another version made this run: its {kind.__name__} has a field {min(unknown)!r}; run again")
    off = _off(kind) if hasattr(kind, "set_name") else {}
    return kind(**off | {name: _tuples(value) for name, value in stored.items()})


def _off(kind: type[Any]) -> dict[str, Any]:
    return {name: None for name in _rules_in(kind)} | {"by_lang": ()}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def changed(cfg: RulesConfig, settings: Sequence[str]) -> RulesConfig:
    """The config with settings applied, in order. Raises UserError.

    gopher_quality.min_words=30        another bound; `null` switches the rule off
    gopher.min_words=30                any beginning of a set's name that leaves one set with such a rule
    fineweb.max_newlines@zh=0.5        the bound for one language
    gopher_quality=null, =true         a set off, or on with its published bounds
    gopher_quality.dialect=dclm        a set as another system reads it
    mine.max_links=3                   a rule of the recipe's own (`extra`), by its name
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not (equals and path):
            raise UserError(f"--set {setting!r} is not SET.RULE=VALUE, e.g. --set gopher_quality.min_words=30")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        extra = next((r for r in cfg.extra if path == r.name or path.startswith(f"{r.name}@")), None)
        if extra is not None:
            new = _with_bound(extra, path[len(extra.name) + 1 :], _number(value, setting))
            cfg = replace(cfg, extra=tuple(new if r is extra else r for r in cfg.extra))
        else:
            owner, _, rule = path.partition(".")
            cfg = _with_rule(cfg, owner, rule, value, setting) if rule else _with_set(cfg, owner, value, setting)
    return cfg


def _with_set(cfg: RulesConfig, owner: str, value: Any, setting: str) -> RulesConfig:
    name = _owner(cfg, owner, None, setting)
    if value is None:
        off: dict[str, Any] = {name: None}
        return replace(cfg, **off)
    if value is True:
        return replace(cfg, **{name: set_types()[name]()})
    raise UserError(f"--set {setting!r}: a whole set is switched off by null or on by true; a rule is {name}.RULE=VALUE")


def _with_rule(cfg: RulesConfig, owner: str, path: str, value: Any, setting: str) -> RulesConfig:
    rule, _, lang = path.partition("@")
    name = _owner(cfg, owner, rule, setting)
    kind = set_types()[name]
    old = getattr(cfg, name)
    if rule == "dialect":
        if not isinstance(value, str) or old is None:
            raise UserError(f"--set {setting!r}: the dialect of a set that is on is a name, e.g. {name}.dialect=datatrove")
        return replace(cfg, **{name: replace(old, dialect=value)})
    if old is None:  # the set is off: this rule of it alone goes on
        old = kind(**_off(kind))
    bound = _number(value, setting)
    if lang:
        others = tuple(o for o in old.by_lang if o[:2] != (lang, rule))
        return replace(cfg, **{name: replace(old, by_lang=(*others, (lang, rule, bound)))})
    return replace(cfg, **{name: replace(old, **{rule: bound})})


def _with_bound(rule: Rule, lang: str, bound: float | None) -> Rule:
    if not lang:
        return replace(rule, bound=bound)
    return replace(rule, by_lang=(*(o for o in rule.by_lang if o[0] != lang), (lang, bound)))


def _owner(cfg: RulesConfig, owner: str, rule: str | None, setting: str) -> str:
    """The one set whose name is or begins with `owner` and that has the rule, if one is asked for."""
    types = set_types()
    begin, _, dialect = owner.partition("@")
    named = [begin] if begin in types else [name for name in types if name.startswith(begin)]
    if not named:
        own = "".join(f", {r.name}" for r in cfg.extra)
        raise UserError(f"--set {setting!r}: there is no rule set {begin!r}; there are {', '.join(types)}{own}")
    rules = {name: [*_rules_in(types[name]), *(["dialect"] if has_dialect(types[name]) else [])] for name in named}
    found = [name for name in named if rule is None or rule in rules[name]]
    if not found:
        every = [f"{name}.{r}" for name in named for r in rules[name]]
        near = [r for r in every if rule and rule in r] or difflib.get_close_matches(f"{named[0]}.{rule}", every) or every
        raise UserError(f"--set {setting!r}: there is no rule {rule!r}; did you mean {' or '.join(near)}?")
    if len(found) > 1:
        candidates = ", ".join(name if rule is None else f"{name}.{rule}" for name in found)
        raise UserError(f"--set {setting!r} may mean any of {candidates}; write more of the name")
    now = getattr(getattr(cfg, found[0]), "dialect", "")
    if dialect and dialect != now:
        raise UserError(
            f"--set {setting!r}: the run's {found[0]} is {f'@{now}' if now else 'our own'}; "
            f"for another dialect --set {found[0]}.dialect={dialect}"
        )
    return found[0]


def _number(value: Any, setting: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"--set {setting!r}: a bound is a number, or null for off, not {value!r}")
    return float(value)


def set_types() -> dict[str, type[Any]]:
    """The fields of RulesConfig that are rule sets, with their classes."""
    hints = typing.get_type_hints(RulesConfig)
    kinds = {name: [t for t in typing.get_args(hint) if hasattr(t, "set_name")] for name, hint in hints.items()}
    return {name: found[0] for name, found in kinds.items() if found}


def _rules_in(kind: type[Any]) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if "measure" in f.metadata]


def has_dialect(kind: type[Any]) -> bool:
    """Whether the sets of a class can be read as other systems do."""
    return any(f.name == "dialect" for f in dataclasses.fields(kind))
