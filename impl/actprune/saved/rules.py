"""Rules: which format stands for what is saved, as the text of a spec says it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from actprune.formats import Dense, Derivative, Format, PruningFormat, parse, parse_saved
from actprune.saved.operators import ACTIVATION, KINDS, PRODUCTS
from actprune_common.errors import InputError, expected

AT, ANY, THEN, NEXT = "@", "*", "=>", ";"
Targets = tuple[tuple[str, Format], ...]
"""Globs on layers, or on modules with a kind behind an AT, and their formats, in order."""


@dataclass(frozen=True)
class Rule:
    """What is saved for one kind of function, or any, in the modules that a glob names."""

    glob: str
    kind: str
    format: Format

    def names(self, module: str, kind: str) -> bool:
        """Whether it decides for a kind within a module, named directly or by one around it."""
        parts = module.split(".")
        around = (".".join(parts[:count]) for count in range(len(parts), -1, -1))
        matches = self.glob == ANY or any(fnmatchcase(name, self.glob) for name in around)
        return matches and self.kind in (ANY, kind)


def rule_of(target: str, format: Format) -> Rule:
    """Return the rule of GLOB@KIND, where no glob is any module. Raises InputError."""
    glob, _, kind = target.rpartition(AT)
    if kind not in (ANY, *KINDS):
        what = f"one of {', '.join(KINDS)} or * behind '@'"
        raise expected("spec", what, repr(target))
    if isinstance(format, PruningFormat) and kind not in PRODUCTS:
        others = "dense, codes or derivative" if kind == ACTIVATION else "dense or codes"
        raise InputError(
            f"spec: {format.name} serves what {' and '.join(PRODUCTS)} save, whose gradients are "
            f"linear in it; @{kind} takes {others}, got {format.spec!r}"
        )
    if isinstance(format, Derivative) and kind != ACTIVATION:
        raise InputError(
            f"spec: {format.name} serves @{ACTIVATION} alone, of which GELU and SiLU have one; got "
            f"{format.spec!r} for @{kind}"
        )
    return Rule(glob or ANY, kind, format)


def formats_in(module: str, rules: Iterable[Rule]) -> dict[str, Format]:
    """Return the format of each kind within a module: that of the first rule that names it.

    Where that is `derivative`, it stands under its own name, and the first of another format
    decides for the activations that have none.
    """
    found: dict[str, Format] = {}
    for kind in KINDS:
        formats = [rule.format for rule in rules if rule.names(module, kind)]
        if formats and isinstance(formats[0], Derivative):
            found[Derivative.name] = formats[0]
        found[kind] = next((one for one in formats if not isinstance(one, Derivative)), Dense())
    return found


def parse_rules(formats: Mapping[str, str | Format]) -> Targets:
    """Return targets and formats of a mapping of globs to specs.

    Raises InputError on a glob that the text of a plan cannot hold.
    """
    for glob in formats:
        if not re.fullmatch(r"[^\s;+=>]+", glob):
            raise expected("spec", "a glob without spaces and ; + = > before '=>'", repr(glob))
    reads = {glob: parse_saved if AT in glob else parse for glob in formats}
    return tuple((glob, reads[glob](text)) for glob, text in formats.items())


def read_rules(text: str) -> Targets:
    """Return the targets and formats that a spec without strategies names.

    Raises InputError: a glob, a kind or a format is wrong; the text names it.
    """
    if isinstance(text, str) and text.strip().startswith(AT) and THEN not in text:
        raise InputError(f"spec: expected {AT}KIND=>FORMAT, got {text!r}")
    if not isinstance(text, str) or (THEN not in text and NEXT not in text):
        return ((ANY, parse(text)),)
    formats: dict[str, str] = {}
    for rule in text.split(NEXT):
        glob, then, format = (part.strip() for part in rule.partition(THEN))
        if not then:
            raise InputError(f"spec: expected GLOB=>FORMAT between ';', got {rule!r} in {text!r}")
        if glob in formats:
            raise InputError(f"spec: glob {glob!r} is given twice in {text!r}")
        formats[glob] = format
    rules = parse_rules(formats)
    for target, each in rules:
        if AT in target:
            rule_of(target, each)
    return rules
