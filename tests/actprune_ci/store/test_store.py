"""The store loses nothing, changes nothing, and answers what was put in."""

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from actprune_ci.cli import app
from actprune_ci.history.series import load
from actprune_ci.judge.from_store import runs_of
from actprune_ci.model.metrics import Metric
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.model.serialise import from_json, to_json
from actprune_ci.store.integrity import file_name
from actprune_ci.store.query import measurements, over, sql, verified
from actprune_ci.store.record import record
from actprune_ci.store.store import SCHEMA, canonical, connect, digest, found, read, stem, write
from actprune_ci.store.store import text as literal
from actprune_common.errors import InputError

DATA = Path(__file__).parents[1] / "data"
ASV = DATA / "asv/tiny/5ba301d5-existing-py_usr_bin_python.json"
PYTEST = DATA / "pytest-benchmark.json"
RESULTS = DATA / "results.json"
ROOT = Path(__file__).parents[3]


def a_run(number: int = 0, commit: str = "c" * 40, samples: tuple[float, ...] = (1.0, 2.0)) -> Run:
    spec = (("spec", "bsr:block=32,sparsity=0.9"), ("layer", "fc1"))
    return Run(
        source="asv",
        commit=commit,
        dirty=False,
        date=f"2026-01-{number + 1:02}T03:04:05+00:00",
        machine="m",
        environment={"torch": "2.13"},
        measurements=(
            Measurement(Key("s.track_bytes", spec, "bytes", "bytes"), (100.0 + number,)),
            Measurement(Key("s.time_sum", spec), samples),
            Measurement(Key("s.time_sum", (("spec", "dense"),)), (), "failed", "no memory"),
        ),
    )


def versioned(version: str) -> Run:
    """The run, of another version of its benchmarks' code."""
    figures = (replace(m, key=replace(m.key, version=version)) for m in a_run().measurements)
    return replace(a_run(), measurements=tuple(figures))


def of_schema_1(run: Run, store: Path) -> Path:
    """A run's file as it was written before versions, meanings and digests of bytes."""
    (store / "runs").mkdir(parents=True, exist_ok=True)
    made = write(run, store / "made")
    path = store / f"runs/{stem(canonical(run))}.parquet"
    columns = "* EXCLUDE (version, meaning) REPLACE (1::INTEGER AS schema)"
    source = f"SELECT {columns} FROM read_parquet({literal(str(made))})"
    connect().execute(f"COPY ({source}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
    shutil.rmtree(store / "made")
    return path


def files(store: Path) -> list[str]:
    return sorted(str(p.relative_to(store)) for p in store.rglob("*") if p.is_file())


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
keys = st.builds(
    Key,
    benchmark=texts,
    params=st.dictionaries(texts, texts, max_size=3).map(lambda d: tuple(d.items())),
    metric=texts,
    unit=texts,
    version=texts,
)
meanings = st.builds(
    Metric,
    direction=st.sampled_from(["lower", "higher", "none"]),
    unit=texts,
    exact=st.booleans(),
    smallest=st.none() | numbers,
)
figures = st.one_of(
    st.builds(Measurement, keys, st.lists(numbers, min_size=1, max_size=3).map(tuple)),
    st.builds(Measurement, keys, st.just(()), st.sampled_from(["failed", "skipped"]), texts),
)
runs = st.builds(
    Run,
    source=st.sampled_from(["asv", "pytest-benchmark", "actprune", "ab"]),
    commit=texts,
    dirty=st.booleans(),
    date=st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30)).map(
        lambda date: f"{date.isoformat()}+02:00"
    ),
    machine=texts,
    environment=st.dictionaries(texts, texts, max_size=3),
    measurements=st.lists(figures, min_size=1, max_size=4, unique_by=lambda m: m.key).map(tuple),
    metrics=st.dictionaries(texts, meanings, max_size=3),
)


def test_several_declared_metrics_come_back_in_whatever_order_they_stand(tmp_path: Path) -> None:
    figures = [Measurement(Key("a", (), "z"), (1.0,)), Measurement(Key("b", (), "y"), (1.0,))]
    declared = {"z": Metric("higher"), "y": Metric("lower")}
    facts = Run("asv", "", False, "2026-01-02T03:04:05+00:00", "box", {}, tuple(figures))
    for metrics in (declared, dict(reversed(declared.items()))):
        run = replace(facts, machine=f"box {next(iter(metrics))}", metrics=metrics)
        written = write(run, tmp_path)
        assert written
        assert read(written).metrics == declared


@given(runs.filter(lambda run: "1970" < run.date < "9999"))
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, run: Run
) -> None:
    store = tmp_path_factory.mktemp("store")
    path = write(run, store)
    assert path is not None
    assert path == found(canonical(run), store)
    assert read(path) == canonical(run)
    assert write(run, store) is None


def test_a_name_is_the_date_and_the_digests(tmp_path: Path) -> None:
    path = write(a_run(), tmp_path)
    assert path is not None
    content = sha256(path.read_bytes() + b"20260101T030405Z-a4ecd59e4eef9677").hexdigest()[:16]
    assert path.name == f"20260101T030405Z-a4ecd59e4eef9677-{content}.parquet"
    assert digest(canonical(a_run())) == "a4ecd59e4eef9677"  # the same on every machine, for ever
    assert oct(path.stat().st_mode & 0o777) == "0o644"


def test_the_order_of_measurements_and_the_time_zone_make_no_other_run() -> None:
    run = a_run()
    same = replace(
        run, date="2026-01-01T05:04:05+02:00", measurements=tuple(reversed(run.measurements))
    )
    assert digest(canonical(same)) == digest(canonical(run))


@pytest.mark.parametrize(
    "other",
    [
        replace(a_run(), commit="d" * 40),
        replace(a_run(), dirty=True),
        replace(a_run(), environment={"torch": "2.14"}),
        a_run(samples=(1.0, 2.0000000000000004)),
        a_run(samples=(2.0, 1.0)),
        versioned("1"),
        replace(a_run(), metrics={"bytes": Metric("lower", "bytes")}),
    ],
)
def test_any_difference_makes_another_run(other: Run) -> None:
    assert digest(canonical(other)) != digest(canonical(a_run()))


def test_a_run_that_is_not_sound_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="measurements: expected at least one, got none"):
        write(replace(a_run(), measurements=()), tmp_path)
    with pytest.raises(InputError, match="time: samples: expected finite numbers, got inf"):
        write(a_run(samples=(float("inf"),)), tmp_path)
    for date in ("soon", "9999-12-31T23:00:00-05:00"):
        with pytest.raises(InputError, match=f"date: expected ISO 8601, got '{date}'"):
            write(replace(a_run(), date=date), tmp_path)
    assert files(tmp_path) == []


def test_record_takes_every_tool_and_a_folder(tmp_path: Path) -> None:
    outcomes = record([DATA], tmp_path / "store")
    assert [(o.path.name, o.status) for o in outcomes] == [
        (ASV.name, "recorded"),
        ("pytest-benchmark.json", "recorded"),
        ("results.json", "recorded"),
    ]
    rows = sql(
        tmp_path / "store", "SELECT source, count(*) FROM measurements GROUP BY 1 ORDER BY 1"
    )
    assert rows.rows == [("actprune", 33), ("asv", 12), ("pytest-benchmark", 7)]
    assert rows.skipped == {}


def test_record_sets_aside_what_is_wrong_and_records_the_rest(tmp_path: Path) -> None:
    inputs, store = tmp_path / "in", tmp_path / "store"
    inputs.mkdir()
    half, foreign = inputs / "a-half.json", inputs / "b-foreign.json"
    half.write_bytes(PYTEST.read_bytes()[:1000])
    foreign.write_text('{"name": "a package"}', "utf-8")
    shutil.copy(RESULTS, inputs / "c-good.json")
    shutil.copy(RESULTS, inputs / "d-again.json")
    before = {path: path.read_bytes() for path in inputs.iterdir()}
    outcomes = record([inputs], store)
    assert [o.status for o in outcomes] == ["set aside", "set aside", "recorded", "duplicate"]
    assert {path: path.read_bytes() for path in inputs.iterdir()} == before
    aside = store / "set-aside"
    (copy,) = aside.glob("*-a-half.json")
    assert copy.read_bytes() == half.read_bytes()
    reason = copy.with_name(f"{copy.name}.reason.txt").read_text("utf-8")
    assert reason.startswith(f"{half}: not JSON (")
    assert f"\nfrom {half.resolve()}\non 20" in reason
    (note,) = aside.glob("*-b-foreign.json.reason.txt")
    assert "of no known tool: expected one of asv results" in note.read_text("utf-8")
    (note,) = aside.glob("*.duplicate.reason.txt")
    name = outcomes[2].files[0].name
    assert note.read_text("utf-8").startswith(f"{inputs}/d-again.json: a duplicate of {name}\n")
    once = files(store)
    assert {o.status for o in record([inputs], store)} == {"set aside", "duplicate"}
    assert [name for name in files(store) if not name.endswith("reason.txt")] == [
        name for name in once if not name.endswith("reason.txt")
    ]


def test_record_of_a_folder_that_holds_the_store_leaves_the_store_alone(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{", "utf-8")
    store = tmp_path / "store"
    assert len(record([tmp_path], store)) == 1
    assert len(record([tmp_path], store)) == 1


def test_record_with_another_commit_and_machine(tmp_path: Path) -> None:
    (outcome,) = record([PYTEST], tmp_path, commit="e" * 40, machine="runner")
    run = read(outcome.files[0])
    assert (run.commit, run.machine) == ("e" * 40, "runner")
    assert record([PYTEST], tmp_path)[0].status == "recorded"


def test_record_needs_paths_that_exist_a_full_commit_and_a_local_store(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(InputError) as problem:
        record([PYTEST, missing], tmp_path / "store")
    assert str(problem.value) == f"{missing}: no such file or folder"
    assert not (tmp_path / "store").exists()
    with pytest.raises(InputError) as problem:
        record([PYTEST], tmp_path / "store", commit="HEAD")
    expected = "commit: expected a full hash, of 40 hexadecimal digits, got 'HEAD'"
    assert str(problem.value) == expected
    with pytest.raises(InputError, match="record writes to a local folder"):
        record([PYTEST], Path("s3://bucket/store"))


def _record_all(inputs: Path, store: Path) -> None:
    record([inputs], store)


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    inputs, store = tmp_path / "in", tmp_path / "store"
    (tmp_path / "own0").mkdir()
    (tmp_path / "own1").mkdir()
    inputs.mkdir()
    document = json.loads(PYTEST.read_text("utf-8"))
    for number in range(8):  # all writers meet over these, and each has some of its own
        document["commit_info"]["id"] = f"{number:040x}"
        (inputs / f"{number}.json").write_text(json.dumps(document), "utf-8")
        document["commit_info"]["id"] = f"{number + 100:040x}"
        (tmp_path / f"own{number % 2}/{number}.json").write_text(json.dumps(document), "utf-8")
    context = multiprocessing.get_context("spawn")
    folders = [inputs, inputs, tmp_path / "own0", tmp_path / "own1"]
    writers = [context.Process(target=_record_all, args=(folder, store)) for folder in folders]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    found = sorted((store / "runs").iterdir())
    commits = {read(path).commit for path in found}
    assert commits == {f"{n:040x}" for n in (*range(8), *range(100, 108))}
    assert len(found) == 16
    assert [path.name for path in (store / "runs").glob(".*")] == []


FULL_DISK = """
import resource, sys
from pathlib import Path
from actprune_ci.store.record import record
from actprune_common.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    record([Path(sys.argv[1])], Path(sys.argv[2]))
except InputError as problem:
    print(problem)
"""


@pytest.mark.parametrize("good", [True, False])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, good: bool) -> None:
    source = tmp_path / "source.json"
    source.write_bytes(PYTEST.read_bytes()[: None if good else 3000])
    store = tmp_path / "store"
    write(a_run(), store)
    before = files(store)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(source), str(store)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": os.pathsep.join([str(ROOT / "ci"), str(ROOT / "impl")])},
    )
    assert (done.returncode, done.stderr) == (0, "")
    refused = "cannot be written: " if good else "cannot be written (File too large); "
    assert refused in done.stdout
    assert files(store) == before
    assert read(store / before[0]) == canonical(a_run())


def test_versions_and_meanings_are_columns(tmp_path: Path) -> None:
    declared = {"bytes": Metric("lower", "bytes", smallest=0.5), "unmeasured": Metric("higher")}
    write(replace(versioned("2"), metrics=declared), tmp_path)
    answer = sql(tmp_path, "SELECT DISTINCT metric, version, meaning FROM measurements ORDER BY 1")
    said = '{"direction": "lower", "smallest": 0.5, "unit": "bytes"}'
    assert answer.rows == [("bytes", "2", said), ("time", "2", "")]


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"python": "3.11.4", "env_name": "virtualenv-py3.9-numpy"}, "virtualenv-py3.9-numpy"),
        ({"python": "3.11.4"}, "asv-py3.11"),
        ({"python": "3.11.4", "env_name": ""}, "asv-py3.11"),
        ({"python": "pypy"}, "asv-pyunknown"),
        ({}, "asv-pyunknown"),
    ],
)
def test_an_environment_has_a_name(tmp_path: Path, environment: dict[str, str], name: str) -> None:
    write(replace(a_run(), environment=environment), tmp_path)
    assert sql(tmp_path, "SELECT DISTINCT env_name FROM measurements").rows == [(name,)]


def test_a_file_of_schema_1_is_read_and_is_the_run_that_is_recorded_again(tmp_path: Path) -> None:
    path = of_schema_1(a_run(), tmp_path)
    assert read(path) == canonical(a_run())
    assert write(a_run(), tmp_path) is None
    write(versioned("1"), tmp_path)
    question = "SELECT version, count(*) FROM measurements GROUP BY 1 ORDER BY 1"
    assert sql(tmp_path, question).rows == [("", 3), ("1", 3)]


def test_two_files_of_one_run_count_once(tmp_path: Path) -> None:
    path = write(a_run(), tmp_path)
    assert path is not None
    content = path.read_bytes()
    query = f"COPY (FROM read_parquet({literal(str(path))})) TO {{}} (FORMAT parquet)"
    other = tmp_path / "other.parquet"  # as another version of DuckDB writes it
    connect().execute(query.format(literal(str(other))))
    run, content = stem(canonical(a_run())), other.read_bytes()
    (tmp_path / "runs" / file_name(run, content)).write_bytes(content)
    of_schema_1(a_run(), tmp_path)
    assert len(files(tmp_path / "runs")) == 3
    answer = sql(tmp_path, "SELECT count(*) FROM measurements")
    assert (answer.rows, answer.skipped) == ([(3,)], {})


ROWS = "SELECT * EXCLUDE (run) FROM measurements ORDER BY ALL"


def refusals(store: Path, path: Path) -> list[str]:
    """What every reader says of a damaged file beside a sound one; it must not be believed."""
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: ") as problem:
        read(path)
    rows, skipped = over(store, lambda connection: connection.execute(ROWS).fetchall())
    assert len(rows) == 3
    assert list(skipped) == [str(path)]
    assert sql(store, ROWS).rows == rows
    assert load(store, ["d" * 40]).skipped == tuple(skipped.values())
    return [str(problem.value), *skipped.values()]


def flips(content: bytes, step: int) -> Iterator[bytes]:
    for place in range(0, len(content), step):
        yield content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]


def test_a_flipped_bit_is_seen_by_every_reader(tmp_path: Path) -> None:
    path = write(a_run(1), tmp_path)
    write(a_run(commit="d" * 40), tmp_path)
    assert path is not None
    content = path.read_bytes()
    for changed in flips(content, 331):
        path.write_bytes(changed)
        refusals(tmp_path, path)
    path.write_bytes(content)
    assert len(sql(tmp_path, ROWS).rows) == 6


@pytest.mark.parametrize("step", [37, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flip_at_any_byte_is_seen(tmp_path: Path, step: int) -> None:
    path, connection = write(a_run(), tmp_path), connect()
    assert path is not None
    for changed in flips(path.read_bytes(), step):
        path.write_bytes(changed)
        kept, bad = verified(connection, str(tmp_path))
        assert (kept, list(bad)) == ([], [str(path)])
        with pytest.raises(InputError, match="digest: the bytes have"):
            read(path)


@pytest.mark.parametrize("step", [331, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_schema_1_changes_no_row(tmp_path: Path, step: int) -> None:
    path = of_schema_1(a_run(1), tmp_path)
    content, rows = path.read_bytes(), sql(tmp_path, ROWS).rows
    connection, refused = connect(), 0
    for changed in flips(content, step):  # one in what no reader looks at may pass
        path.write_bytes(changed)
        kept, bad = verified(connection, str(tmp_path))
        assert [*kept, *bad] == [str(path)]
        refused += bool(bad)
        assert bad or sql(tmp_path, ROWS).rows == rows
    assert refused >= 5


def test_a_renamed_and_a_truncated_run_are_refused(tmp_path: Path) -> None:
    path = write(a_run(1), tmp_path)
    write(a_run(commit="d" * 40), tmp_path)
    assert path is not None
    _, run, content = path.stem.split("-")
    for name in (
        f"20270101T000000Z-{run}-{content}",
        f"20260102T030405Z-{'0' * 16}-{content}",
        f"20260102T030405Z-{run}-{'0' * 16}",
        f"20260102T030405Z-{run}",
        "x",
    ):
        other = path.rename(path.with_name(f"{name}.parquet"))
        refusals(tmp_path, other)
        other.rename(path)
    (said, _) = refusals_of_half(tmp_path, path)
    assert re.search(r"digest: the bytes have [0-9a-f]{16}, so they or the name were changed", said)


def refusals_of_half(store: Path, path: Path) -> list[str]:
    path.write_bytes(path.read_bytes()[:-200])
    return refusals(store, path)


def test_recording_a_damaged_run_again_sets_the_damaged_file_aside(tmp_path: Path) -> None:
    path = write(a_run(), tmp_path)
    assert path is not None
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert write(a_run(), tmp_path) == path
    assert read(path) == canonical(a_run())
    (aside,) = (tmp_path / "set-aside").glob(f"*-{path.name}")
    assert aside.read_bytes() == content[:-1]
    reason = aside.with_name(f"{aside.name}.reason.txt").read_text("utf-8")
    assert reason.startswith(f"{path}: digest: the bytes have ")


def test_a_file_of_a_newer_schema_is_not_set_aside(tmp_path: Path) -> None:
    path = write(a_run(), tmp_path)
    assert path is not None
    newer = tmp_path / "newer.parquet"
    source = f"SELECT * REPLACE (3::INTEGER AS schema) FROM read_parquet({literal(str(path))})"
    connect().execute(f"COPY ({source}) TO {literal(str(newer))} (FORMAT parquet)")
    path.unlink()
    content = newer.read_bytes()
    there = path.with_name(file_name(stem(canonical(a_run())), content))
    there.write_bytes(content)
    assert write(a_run(), tmp_path) == path
    assert there.read_bytes() == content


def damaged_store(store: Path) -> dict[str, str]:
    """A store of three good runs and four bad files; the bad ones and what is said of each."""
    good, *_ = [write(a_run(number), store) for number in range(3)]
    assert good is not None
    content = good.read_bytes()

    def put(name: str, content: bytes, *, fits: bool = True) -> str:
        run = f"2025{name}T000000Z-{'0' * 16}"
        path = good.with_name(file_name(run, content) if fits else f"{run}-{'0' * 16}.parquet")
        path.write_bytes(content)
        return str(path)

    def made(columns: str) -> bytes:
        path = store / "made.parquet"
        source = f"SELECT {columns} FROM read_parquet({literal(str(good))})"
        connect().execute(f"COPY ({source}) TO {literal(str(path))} (FORMAT parquet)")
        content = path.read_bytes()
        path.unlink()
        return content

    newer = f"* REPLACE ({SCHEMA + 1}::INTEGER AS schema)"
    return {
        put("0101", content[:-20], fits=False): "digest: the bytes have ",
        put("0102", b""): "too small to be a Parquet file",
        put("0103", made("1 AS x")): "schema: expected INTEGER, got no such column",
        put("0104", made(newer)): "schema: expected 2, got 3",
    }


def test_a_question_leaves_out_bad_files_and_names_each(tmp_path: Path) -> None:
    bad = damaged_store(tmp_path)
    answer = sql(tmp_path, "SELECT sum(sample) FROM samples WHERE metric = 'bytes'")
    assert answer.rows == [(303.0,)]
    assert list(answer.skipped) == sorted(bad)
    for name, reason in bad.items():
        assert answer.skipped[name].startswith(f"{name}: ")
        assert reason in answer.skipped[name]


def test_a_store_of_bad_files_alone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/x.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"no file of it can be read: .*x\.parquet: name: "):
        sql(tmp_path, "SELECT 1 FROM measurements")


def test_measurements_are_filtered_by_everything(tmp_path: Path) -> None:
    for number in range(4):
        write(a_run(number, commit=f"{number}" * 40), tmp_path)

    def found(**conditions: object) -> list[tuple[object, ...]]:
        columns = ('left("commit", 1)', "samples")
        return measurements(tmp_path, columns=columns, metric="bytes", **conditions).rows  # type: ignore[arg-type]

    everything = [(str(n), [100.0 + n]) for n in range(4)]
    assert found() == everything
    assert found(benchmark=r"^s\.track_.*sparsity=0\.9") == everything
    assert found(benchmark="track_$") == []
    assert found(params={"layer": "fc1"}) == everything
    assert found(params={"layer": "fc1", "spec": "dense"}) == []
    assert found(params={"it's": "x"}) == []
    assert found(machine="other") == []
    assert found(commits=["1" * 40, "3" * 40]) == [everything[1], everything[3]]
    assert found(since="2026-01-02", until="2026-01-04") == everything[1:3]


def test_views_hold_medians_failures_and_numbered_samples(tmp_path: Path) -> None:
    write(a_run(samples=(3.0, 1.0, 2.0)), tmp_path)
    question = (
        "SELECT name, status, value, detail FROM measurements WHERE metric = 'time' ORDER BY 2"
    )
    assert sql(tmp_path, question).rows == [
        ("s.time_sum(spec=dense)", "failed", None, "no memory"),
        ("s.time_sum(spec=bsr:block=32,sparsity=0.9, layer=fc1)", "ok", 2.0, ""),
    ]
    question = """SELECT number, sample, params['layer'], environment['torch'] FROM samples
                  WHERE metric = 'time' ORDER BY number"""
    expected = [(1, 3.0, "fc1", "2.13"), (2, 1.0, "fc1", "2.13"), (3, 2.0, "fc1", "2.13")]
    assert sql(tmp_path, question).rows == expected


def test_a_question_that_cannot_be_answered_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError) as problem:
        sql(tmp_path, "SELECT 1")
    expected = f"{tmp_path}: no runs in this store (expected {tmp_path}/runs/*.parquet)"
    assert str(problem.value) == expected
    write(a_run(), tmp_path)
    with pytest.raises(InputError, match=r'^query: .*"nonsense"'):
        sql(tmp_path, "SELECT nonsense FROM measurements")


def test_an_object_store_needs_an_extension_that_is_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where DuckDB keeps its extensions
    for url, extension in (("s3://bucket/store", "httpfs"), ("az://bucket/store", "azure")):
        with pytest.raises(InputError) as problem:
            sql(url, "SELECT 1")
        assert str(problem.value) == (
            f"{url}: needs DuckDB's extension {extension}: where there is a network, run once"
            f" python -c \"import duckdb; duckdb.sql('INSTALL {extension}')\""
        )


def command(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app(), [str(word) for word in words])
    return done.exit_code, done.stdout, done.stderr


def test_record_command_says_what_became_of_its_files(tmp_path: Path) -> None:
    store, bad = tmp_path / "store", tmp_path / "bad.json"
    bad.write_text("{", "utf-8")
    assert command("record", PYTEST, ASV, "--store", store) == (
        0,
        f"{store}: 2 files recorded (2 runs), 0 duplicates, 0 set aside\n",
        "",
    )
    code, out, err = command("record", PYTEST, bad, "--store", store)
    assert (code, out) == (2, f"{store}: 0 files recorded (0 runs), 1 duplicates, 1 set aside\n")
    assert err.startswith(f"set aside: {bad}: not JSON (")
    code, out, _ = command("record", bad, "--store", store)
    assert (code, out) == (3, f"{store}: 0 files recorded (0 runs), 0 duplicates, 1 set aside\n")
    (tmp_path / "empty").mkdir()
    code, out, _ = command("record", tmp_path / "empty", "--store", store)
    assert code == 3
    assert out.endswith("0 set aside: no result file found\n")
    assert command("record", PYTEST, "--store", store)[0] == 0


def test_query_command_prints_tables_csv_and_json(tmp_path: Path) -> None:
    damaged_store(tmp_path)
    question = "SELECT date, value FROM measurements WHERE metric = 'bytes' ORDER BY 1 LIMIT 2"
    code, out, err = command("query", tmp_path, question)
    assert (code, out) == (
        0,
        "date                 value\n2026-01-01 03:04:05  100\n2026-01-02 03:04:05  101\n",
    )
    assert err.count("left out: ") == 4
    _, out, _ = command("query", tmp_path, question, "--format", "csv")
    assert out == "date,value\n2026-01-01 03:04:05,100.0\n2026-01-02 03:04:05,101.0\n"
    _, out, _ = command("query", tmp_path, question, "--format", "json")
    assert json.loads(out)[1] == {"date": "2026-01-02 03:04:05", "value": 101.0}


@pytest.mark.parametrize(
    "question",
    [
        "COPY measurements TO '{folder}/stolen.csv'",
        "COPY measurements TO '{run}' (FORMAT parquet)",
        "EXPLAIN ANALYZE COPY measurements TO '{run}' (FORMAT parquet)",
        "ATTACH '{folder}/new.db'",
        "EXPORT DATABASE '{folder}/new'",
        "SELECT 1; COPY measurements TO '{run}'",
        "SELECT 1; SELECT 2",
        "",
        "SET threads = 1",
        "PRAGMA enable_profiling",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CREATE TABLE x AS SELECT 1",
        "FROM enable_logging(storage = 'file', storage_config = {{'path': '{folder}/log'}})",
        "FROM enable_profiling(save_location = '{folder}/profile')",
        "FROM read_csv('/etc/passwd')",
        "FROM read_text('{folder}/secret')",
        "FROM glob('/etc/*')",
        "FROM '{folder}/secret'",
        "FROM read_duckdb('{folder}/new.db')",
        "FROM query('COPY measurements TO ''{run}''')",
    ],
)
def test_a_question_reads_the_store_and_nothing_else(tmp_path: Path, question: str) -> None:
    store = tmp_path / "it's a store"
    run = write(a_run(), store)
    assert run is not None
    (tmp_path / "secret").write_text("secret", "utf-8")
    before, content = files(tmp_path), run.read_bytes()
    asked = question.format(folder=tmp_path, run=str(run).replace("'", "''"))
    with pytest.raises(InputError, match=r"^query: ") as problem:
        sql(store, asked)
    assert "\n" not in str(problem.value)
    assert (files(tmp_path), run.read_bytes()) == (before, content)


def test_a_question_to_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(a_run(), tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    asked = "WITH x AS (FROM measurements) SELECT count(*) FROM x ORDER BY 1"
    assert sql("store", asked).rows == sql(Path("./store/"), asked).rows == [(3,)]
    assert sql("store", "DESCRIBE samples").rows
    assert sql("store", "SHOW TABLES").rows == [("measurements",), ("samples",)]


@pytest.mark.parametrize(
    ("date", "utc_date"),
    [
        ("2026-01-01T23:30:00-05:00", "2026-01-02T04:30:00+00:00"),
        ("2026-01-02T05:00:00Z", "2026-01-02T05:00:00+00:00"),
        ("2026-01-02T06:00:00", "2026-01-02T06:00:00+00:00"),
        ("2026-01-02T08:00:00.250000+01:00", "2026-01-02T07:00:00.250000+00:00"),
    ],
)
def test_dates_are_instants(tmp_path: Path, date: str, utc_date: str) -> None:
    assert canonical(replace(a_run(), date=date)).date == utc_date
    text = to_json(a_run()).replace(a_run().date, date)
    assert from_json(text).date == utc_date


def test_runs_are_in_the_order_of_their_instants(tmp_path: Path) -> None:
    dates = ("2026-01-02T01:00:00+09:00", "2026-01-01T20:00:00-05:00")
    for value, date in enumerate((*dates, *(f"2026-01-01T17:00:00.{n}00000Z" for n in "314"))):
        write(replace(a_run(samples=(float(value),)), date=date), tmp_path)
    runs = runs_of(tmp_path, ["c" * 40])
    assert [run.date for run in runs] == [
        "2026-01-01T16:00:00+00:00",
        "2026-01-01T17:00:00.100000+00:00",
        "2026-01-01T17:00:00.300000+00:00",
        "2026-01-01T17:00:00.400000+00:00",
        "2026-01-02T01:00:00+00:00",
    ]
