"""Files that are whole or not there, and folders for one process."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actprune_common.errors import InputError, last_line
from actprune_common.files import (
    alone,
    json_value,
    make_folder,
    remove_stale,
    temporary_name,
    whole,
    write_json,
    write_whole,
)


def test_content_is_bytes_or_text_and_the_old_file_can_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/file"
    write_whole(path, "é")
    write_whole(path, memoryview(b"new"), keep=path.with_name("old"))
    assert path.read_bytes() == b"new"
    assert path.with_name("old").read_bytes() == "é".encode()
    assert {each.name for each in path.parent.iterdir()} == {"file", "old"}


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [float("nan"), 1.5], "y": (float("inf"),)})
    assert "".join((tmp_path / "a.json").read_text().split()) == '{"x":[null,1.5],"y":[null]}'


def test_several_may_write_one_path_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole(path) as one, whole(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # the outer one ends last
    with pytest.raises(FileExistsError), whole(path, overwrite=False) as beside:
        beside.write_text("third")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_refusal_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()
    message = rf"^{path}: cannot be written \(Is a directory\); what was saved before is intact$"
    with pytest.raises(InputError, match=message):
        write_whole(path, "text")
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_goes_when_its_folder_is_gone_on_in(tmp_path: Path) -> None:
    with whole(tmp_path / "file") as beside:
        beside.write_text("text")
        left = tmp_path / "left"
        os.link(beside, left)
    left.rename(beside)  # as if the process had been killed meanwhile
    assert make_folder(tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_for_one_process(tmp_path: Path) -> None:
    lock = tmp_path / "new/lock"
    with alone(lock, "is in use"), pytest.raises(InputError, match=f"^{lock.parent}: is in use$"):
        alone(lock, "is in use").__enter__()
    with alone(lock, "is in use"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be written: "):
        alone(tmp_path / "file/lock", "").__enter__()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "code 1"),
        ("\n \n", "code 1"),
        ("Cloning\nfatal: no such branch\n\n", "no such branch"),
        ("Traceback\nKeyError: 'x'\nsee the log\n", "KeyError: 'x'"),
        ("a notice\nkilled\n", "killed"),
        ("ERROR: Could not build\n", "Could not build"),
    ],
)
def test_last_line_tells_the_error(said: str, told: str) -> None:
    assert last_line(said, "code 1") == told


def test_json_of_other_programs_may_have_no_numbers() -> None:
    assert math.isnan(json_value("[NaN]", "x", lenient=True)[0])
    with pytest.raises(InputError, match=r"^x: not JSON \(NaN is no JSON number\)$"):
        json_value(b"[NaN]", "x")


KILLED = """
import os, sys
from pathlib import Path
from actprune_common.files import whole
with whole(Path(sys.argv[1])) as beside:
    beside.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_left_goes_with_a_later_writer(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path / "x.json")]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(words, check=False, env=path)
    (left,) = tmp_path.iterdir()
    mine = tmp_path / ".mine.tmp"
    mine.write_text("mine")
    folder = tmp_path / temporary_name("site")
    folder.mkdir()
    (folder / "y").write_text("half")
    remove_stale.cache_clear()
    write_whole(tmp_path / "x.json", "whole")  # the other writer may still be at work
    assert sorted(tmp_path.iterdir()) == sorted([left, mine, folder, tmp_path / "x.json"])
    for old in (left, mine, folder):
        os.utime(old, (0, 0))
    remove_stale.cache_clear()
    write_whole(tmp_path / "x.json", "whole")
    assert sorted(tmp_path.iterdir()) == [mine, tmp_path / "x.json"]
