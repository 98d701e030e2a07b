"""An entry of ci/triage.yml, written at its end: all else in the file stays as it is."""

import tempfile
from pathlib import Path
from textwrap import indent

import yaml

from actprune_ci.triage.entries import Entry, Triage
from actprune_common.errors import InputError
from actprune_common.files import contents, write_whole
from actprune_common.strict_yaml import load_yaml

BEGIN = """\
# What was decided about changes of figures: `actprune-ci ack` adds entries, people review them.
# docs/nightly.md explains every key.
entries:
"""


def append(path: Path, entry: Entry) -> None:
    """Add an entry to a file, which is made where it is missing.

    Raises InputError where the file is not sound, or an entry cannot be added at its end.
    """
    before, text = Triage(), BEGIN
    if path.exists():
        before, text = load_yaml(path, Triage), contents(path).decode()
        if not before.entries and "entries" not in (yaml.safe_load(text) or {}):
            text = f"{text.rstrip()}\nentries:\n".lstrip()
    made = f"{text.rstrip()}\n{indent(lines(entry), ' ' * _column(text))}"
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "triage.yml"
        trial.write_text(made, "utf-8")
        try:
            after = load_yaml(trial, Triage)
        except InputError:
            after = Triage()
    if after.entries != (*before.entries, entry):
        raise InputError(f"{path}: expected a list of entries, one under the other, at the end")
    write_whole(path, made)


def lines(entry: Entry) -> str:
    """An entry as YAML, every text in quotes: some hashes are numbers without."""
    said = entry.model_dump(exclude_defaults=True)
    told = {name: said[name] for name in Entry.model_fields if name in said}
    order = ["action", *(name for name in told if name != "action")]
    plain = [f"{name}: {_quoted(told[name])}" for name in order]
    return "- " + "\n  ".join(plain) + "\n"


def _quoted(value: object) -> str:
    if not isinstance(value, str | dict):
        return str(value)
    width = float("inf")
    dumped = yaml.dump(
        value,
        default_style='"',
        default_flow_style=True,
        allow_unicode=True,
        width=width,
        sort_keys=False,
    )
    return str(dumped).strip()


def _column(text: str) -> int:
    """How far the entries of a file are indented."""
    node = yaml.compose(text)
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == "entries" and isinstance(value, yaml.SequenceNode) and value.value:
            return int(value.start_mark.column)
    return 2
