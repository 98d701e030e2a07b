"""GitHub through its own program, `gh`, which has the token and knows the repository."""

import json
import re
from dataclasses import dataclass
from shutil import which
from subprocess import TimeoutExpired
from typing import Any, Literal

from actprune_common.errors import InputError
from actprune_common.git import answer

LABEL = "actprune-regression"
LIMIT = 2000
"""Issues with the label that are looked at, the newest first."""
LARGEST = 60_000
"""Characters: GitHub refuses a text of more than 65,536."""
WAIT = 300.0


@dataclass(frozen=True)
class Issue:
    """An issue with our label."""

    number: int
    is_open: bool
    body: str


@dataclass(frozen=True)
class Action:
    """What is to be done about an issue."""

    kind: Literal["create", "update", "reopen", "close"]
    number: int
    """0 where the issue is new."""
    title: str
    body: str
    comment: str


def gh(*words: str, text: str | None = None) -> str:
    """What gh answers. `text` is its standard input. Raises InputError with its last line."""
    if not which("gh"):
        raise InputError("gh: not found; it is GitHub's program, https://cli.github.com")
    named = f"gh {' '.join(words[:2])}"
    try:
        return answer(("gh", *words), named, input=text or "", timeout=WAIT)
    except TimeoutExpired:
        raise InputError(f"{named}: no answer in {WAIT:g} s") from None


def issues() -> list[Issue]:
    """All issues with our label, which only those with a say in the repository can give."""
    fields = ("--state", "all", "--limit", str(LIMIT), "--json", "number,state,body")
    found = _json(gh("issue", "list", "--label", LABEL, *fields), "gh issue list")
    return [Issue(each["number"], each["state"] == "OPEN", each["body"]) for each in found]


def act(action: Action) -> None:
    """Make an issue with our label, or replace its text, its title and its state, with a comment.

    The text, with its mark, comes first: what is cut off is not said twice.
    """
    issue, title = str(action.number), (f"--title={action.title}",) if action.title else ()
    if action.kind == "create":
        described = ("--description", "A figure became worse; kept by actprune-ci issues")
        gh("label", "create", LABEL, "--force", "--color", "B60205", *described)
        gh("issue", "create", *title, "--label", LABEL, "--body-file", "-", text=cut(action.body))
        return
    gh("issue", "edit", issue, *title, "--body-file", "-", text=cut(action.body))
    if action.kind == "reopen":
        gh("issue", "reopen", issue)
    if action.comment:
        gh("issue", "comment", issue, "--body-file", "-", text=cut(action.comment))
    if action.kind == "close":
        gh("issue", "close", issue, "--reason", "completed")


def report(pull: int, head: str, body: str, marker: str, source: str = "") -> str:
    """Show a report on a pull request, in one comment of our own that is known by its marker.

    What was done: `written`, `updated` or `unchanged`. Raises InputError where the pull request's
    head is another commit than the one reported on, or comes from another repository than `source`:
    who has the same commit in a fork of his own may measure it, and speaks for his pull request.
    """
    fields = f"headRefOid,comments{',headRepository,headRepositoryOwner' if source else ''}"
    shown = _json(gh("pr", "view", str(pull), "--json", fields), "gh pr view")
    if source and (found := _head_repository(shown)).lower() != source.lower():
        raise InputError(f"--from: pull request {pull} is from {found}, the report from {source}")
    if shown["headRefOid"] != head:
        found = shown["headRefOid"][:12]
        raise InputError(f"--head: pull request {pull} is at {found}, the report is on {head[:12]}")
    text = cut(f"{marker}\n{body}")
    for each in shown["comments"]:
        place = re.search(r"#issuecomment-(\d+)$", each["url"])
        if not (place and each["viewerDidAuthor"] and each["body"].startswith(marker)):
            continue
        if each["body"].strip() == text.strip():
            return "unchanged"
        path = f"repos/{{owner}}/{{repo}}/issues/comments/{place[1]}"
        gh("api", "--method", "PATCH", path, "--input", "-", text=json.dumps({"body": text}))
        return "updated"
    gh("pr", "comment", str(pull), "--body-file", "-", text=text)
    return "written"


def cut(text: str) -> str:
    """A text that GitHub takes: what is too long ends with a note."""
    if len(text) <= LARGEST:
        return text
    lines, block = text[:LARGEST].split("\n")[:-1], ""
    for line in lines:
        fence = re.match("`{3,}", line)
        if fence and not block:
            block = fence[0]
        elif fence and line == fence[0] and len(line) >= len(block):
            block = ""
    return "\n".join([*lines, *([block] if block else []), "", "(cut: the report is longer)", ""])


def _head_repository(shown: Any) -> str:
    """`owner/name` of where a pull request comes from; a deleted fork has none."""
    owner, repository = shown["headRepositoryOwner"] or {}, shown["headRepository"] or {}
    return f"{owner.get('login', '?')}/{repository.get('name', '?')}"


def _json(said: str, what: str) -> Any:
    try:
        return json.loads(said)
    except ValueError:
        raise InputError(f"{what}: expected JSON, got {said!r:.60}") from None
