"""A `gh` that keeps issues and comments in a file, as far as actprune-ci uses it.

The file's path is in FAKE_GH; with FAKE_GH_FAILS it refuses everything.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def option(words: list[str], name: str) -> str:
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return after
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return ""


def issue(state: dict[str, Any], words: list[str], text: str) -> str:
    verb = words[1]
    if verb == "list":
        fields = option(words, "--json").split(",")
        label = option(words, "--label")
        found = [each for each in state["issues"] if label in each["labels"]]
        return json.dumps([{name: each[name] for name in fields} for each in reversed(found)])
    if verb == "create":
        label = option(words, "--label")
        if label not in state["labels"]:
            sys.exit(f"could not add label: '{label}' not found")
        number = len(state["issues"]) + 1
        made = {"number": number, "state": "OPEN", "title": option(words, "--title")}
        state["issues"].append({**made, "body": text, "labels": [label], "comments": []})
        return ""
    (found_one,) = [each for each in state["issues"] if each["number"] == int(words[2])]
    if verb == "edit":
        found_one["body"] = text
        found_one["title"] = option(words, "--title") or found_one["title"]
    elif verb == "comment":
        found_one["comments"].append(text)
    elif verb in ("close", "reopen"):
        found_one["state"] = "CLOSED" if verb == "close" else "OPEN"
    else:
        sys.exit(f"unknown command {verb}")
    return ""


def pull(state: dict[str, Any], words: list[str], text: str) -> str:
    found = state["pulls"][words[2]]
    if words[1] == "view":
        return json.dumps({name: found[name] for name in option(words, "--json").split(",")})
    number = 100 + len(found["comments"])
    url = f"https://github.example/actprune/pull/{words[2]}#issuecomment-{number}"
    found["comments"].append({"url": url, "viewerDidAuthor": True, "body": text})
    return ""


def api(state: dict[str, Any], words: list[str], text: str) -> str:
    (path,) = [word for word in words if word.startswith("repos/{owner}/{repo}/issues/comments/")]
    for found in state["pulls"].values():
        for each in found["comments"]:
            if each["url"].endswith(f"#issuecomment-{path.rpartition('/')[2]}"):
                each["body"] = json.loads(text)["body"]
    return ""


def main() -> None:
    if os.environ.get("FAKE_GH_FAILS"):
        sys.exit("error connecting to github.example")
    place, words, text = Path(os.environ["FAKE_GH"]), sys.argv[1:], sys.stdin.read()
    state = json.loads(place.read_text("utf-8"))
    state["calls"].append(words)
    if words[:2] == ["label", "create"]:
        state["labels"].append(words[2])
    else:
        answer = {"issue": issue, "pr": pull, "api": api}[words[0]](state, words, text)
        sys.stdout.write(answer)
    place.write_text(json.dumps(state), "utf-8")


if __name__ == "__main__":
    main()
