"""A folder of pages is filled again, and nothing of anybody else is touched."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from actprune_ci.publish.folder import MARKER, refilled
from actprune_common.errors import InputError


def fill(out: Path, names: Mapping[str, str]) -> None:
    with refilled(out) as making:
        for name, text in names.items():
            (making / name).parent.mkdir(parents=True, exist_ok=True)
            (making / name).write_text(text, "utf-8")


def there(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): path.read_text("utf-8")
        for path in out.rglob("*")
        if path.is_file() and path.name != MARKER
    }


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_and_an_empty_folder_are_filled_and_filled_again(
    tmp_path: Path, exists: bool
) -> None:
    out = tmp_path / "a/site"
    if exists:
        out.mkdir(parents=True)
    fill(out, {"index.html": "1", "asv/old/x.json": "1", "asv/y.json": "1"})
    (out / "CNAME").write_text("mine", "utf-8")
    fill(out, {"index.html": "2", "asv/y.json": "2", "more.html": "2"})
    assert there(out) == {
        "index.html": "2",
        "asv/y.json": "2",
        "more.html": "2",
        "CNAME": "mine",
    }
    assert not (out / "asv/old").exists()
    assert [path.name for path in out.parent.iterdir()] == ["site"]


def test_the_folder_here_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for text in "12":
        fill(Path(), {"index.html": text})
        assert there(tmp_path) == {"here/index.html": text}


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "asv").mkdir()
    (tmp_path / "asv/results.json").write_text("mine", "utf-8")
    (tmp_path / "index.html").write_text("mine", "utf-8")
    with pytest.raises(InputError) as problem:
        fill(tmp_path, {"index.html": "ours"})
    assert str(problem.value) == (
        f"{tmp_path}: expected a new or empty folder, or one that publish made,"
        " got one with asv, index.html"
    )
    assert there(tmp_path) == {"asv/results.json": "mine", "index.html": "mine"}
    with pytest.raises(InputError, match=r"index\.html: expected a new or empty folder.*a file$"):
        fill(tmp_path / "index.html", {"x": "ours"})


def test_a_file_and_a_link_of_somebody_else_are_not_overwritten(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    fill(out, {"index.html": "1", "asv/x.json": "1"})
    (out / "new.html").write_text("mine", "utf-8")
    with pytest.raises(
        InputError, match=r"expected no file of that name but its own, got new\.html"
    ):
        fill(out, {"index.html": "2", "new.html": "2"})
    assert there(out) == {"index.html": "1", "asv/x.json": "1", "new.html": "mine"}
    (out / "new.html").unlink()
    (out / "asv").rename(elsewhere)
    (out / "asv").symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"got asv/x\.json"):
        fill(out, {"index.html": "2"})
    assert there(elsewhere) == {"x.json": "1"}


@pytest.mark.parametrize("name", ["../mine", "/etc/hostname", "a/../../mine", ""])
def test_a_list_that_names_other_files_is_refused(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (tmp_path / "mine").write_text("mine", "utf-8")
    fill(out, {"index.html": "1"})
    (out / MARKER).write_text(json.dumps({"schema": 1, "files": [name]}), "utf-8")
    with pytest.raises(InputError, match="expected names of files in the folder"):
        fill(out, {"index.html": "2"})
    assert (tmp_path / "mine").read_text("utf-8") == "mine"
    assert there(out) == {"index.html": "1"}


def test_what_fails_touches_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "out", {"index.html": "1"})
    with pytest.raises(UnicodeEncodeError):
        fill(tmp_path / "out", {"index.html": "2", "new.html": "\ud800"})
    assert there(tmp_path / "out") == {"index.html": "1"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
