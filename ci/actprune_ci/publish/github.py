"""GitHub through its own program, `gh`, which has the token and knows the repository."""

import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any

from actprune_common.errors import InputError, last_line

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


def gh(*words: str, text: str | None = None) -> str:
    """What gh answers. `text` is its standard input. Raises InputError with its last line."""
    try:
        done = subprocess.run(
            ("gh", *words), input=text or "", capture_output=True, text=True, timeout=WAIT
        )
    except FileNotFoundError:
        raise InputError("gh: not found; it is GitHub's program, https://cli.github.com") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"gh {' '.join(words[:2])}: no answer in {WAIT:g} s") from None
    except OSError as problem:
        raise InputError(f"gh: cannot be run: {problem.strerror}") from None
    if done.returncode:
        said = last_line(done.stderr, f"code {done.returncode}")
        raise InputError(f"gh {' '.join(words[:2])}: {said}")
    return done.stdout


def issues() -> list[Issue]:
    """All issues with our label, which only those with a say in the repository can give."""
    fields = ("--state", "all", "--limit", str(LIMIT), "--json", "number,state,body")
    answer = _json(gh("issue", "list", "--label", LABEL, *fields), "gh issue list")
    return [Issue(each["number"], each["state"] == "OPEN", each["body"]) for each in answer]


def create(title: str, body: str) -> None:
    """A new issue with our label, which is made where it is missing."""
    described = ("--description", "A figure became worse; kept by actprune-ci issues")
    gh("label", "create", LABEL, "--force", "--color", "B60205", *described)
    gh("issue", "create", f"--title={title}", "--label", LABEL, "--body-file", "-", text=cut(body))


def change(number: int, kind: str, title: str, body: str, comment: str) -> None:
    """Replace an issue's text, and its title and state where told so, with a comment.

    The text, with its mark, comes first: what is cut off is not said twice.
    """
    issue, words = str(number), (f"--title={title}",) if title else ()
    gh("issue", "edit", issue, *words, "--body-file", "-", text=cut(body))
    if kind == "reopen":
        gh("issue", "reopen", issue)
    if comment:
        gh("issue", "comment", issue, "--body-file", "-", text=cut(comment))
    if kind == "close":
        gh("issue", "close", issue, "--reason", "completed")


def report(pull: int, head: str, body: str, marker: str) -> str:
    """Show a report on a pull request, in one comment of our own that is known by its marker.

    What was done: `written`, `updated` or `unchanged`. Raises InputError where the pull request's
    head is another commit than the one reported on.
    """
    answer = _json(gh("pr", "view", str(pull), "--json", "headRefOid,comments"), "gh pr view")
    if answer["headRefOid"] != head:
        found = answer["headRefOid"][:12]
        raise InputError(f"--head: pull request {pull} is at {found}, the report is on {head[:12]}")
    text = cut(f"{marker}\n{body}")
    for each in answer["comments"]:
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
    return text if len(text) <= LARGEST else f"{text[:LARGEST]}\n\n(cut: the report is longer)\n"


def _json(said: str, what: str) -> Any:
    try:
        return json.loads(said)
    except ValueError:
        raise InputError(f"{what}: expected JSON, got {said!r:.60}") from None
