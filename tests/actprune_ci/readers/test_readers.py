"""Each tool's files become runs of the harness; what is none is refused by name."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actprune_ci.model.runs import AbRun, Key, Measurement, Note, Pairs, Run
from actprune_ci.model.serialise import (
    from_json,
    notes_from_text,
    notes_to_text,
    read_ab,
    to_json,
    write,
)
from actprune_ci.readers import asv, read
from actprune_ci.readers.ab import sides
from actprune_common.errors import InputError

DATA = Path(__file__).parents[1] / "data"
ASV = DATA / "asv/tiny/5ba301d5-existing-py_usr_bin_python.json"
PYTEST = DATA / "pytest-benchmark.json"
RESULTS = DATA / "results.json"
SPEC = "bsr:block=32x32,sparsity=0.9"
HEAD = "a.time_x(spec=dense), time"
DATE = "2026-01-02T03:04:05+00:00"

Document = dict[str, Any]


def only(path: Path) -> Run:
    (run,) = read(path)
    return run


def by_key(run: Run) -> dict[tuple[str, str], Measurement]:
    return {(str(m.key), m.key.metric): m for m in run.measurements}


def changed(path: Path, tmp_path: Path, change: Callable[[Document], object]) -> Path:
    document = json.loads(path.read_text("utf-8"))
    change(document)
    made = tmp_path / "changed.json"
    made.write_text(json.dumps(document), "utf-8")
    return made


def static_document() -> Document:
    record = {
        "kernel": "bsr gather",
        "variant": "*fp32 BM=32 warps=4",
        "specs": ["bsr:block=32"],
        "dtype": "float32",
        "arch": 90,
        "num_warps": 4,
        "num_stages": 2,
        "registers": 72,
        "spill_store_bytes": 0,
        "shared_bytes": 16384,
    }
    environment = {"date": DATE, "fingerprint": "m", "commit": "a" * 40, "triton": "3.9.0"}
    return {"schema": 1, "environment": environment, "records": [record]}


NOTE = Note("clock-jumped", "clock jumped by +9 s")


def ab_run() -> AbRun:
    time, gone = Key("a.time_x", (("spec", "dense"),)), Key("a.time_gone")
    pairs = (Pairs(time, (1.0, 2.0), (1.5, 2.5)), Pairs(gone, (3.0,), (), "skipped", "vanished"))
    return AbRun("b" * 40, "c" * 40, DATE, "m", {"torch": "2"}, {"torch": "3"}, pairs, 9.0, (NOTE,))


def test_asv_grid_samples_failures_and_skips() -> None:
    run, figures = only(ASV), by_key(only(ASV))
    assert (run.source, run.machine, run.dirty) == ("asv", "tiny", False)
    assert run.commit == "5ba301d570e9f7a62cdf8acdd781c74b8aa85d52"
    assert run.date == "2026-11-23T08:04:04.663000+00:00"  # when the last benchmark started
    assert run.environment["commit_date"] == "2026-11-23T08:04:02+00:00"
    assert run.environment["cpu"] == "a CPU"
    assert len(figures) == 12
    timed = figures[f"suite.Grid.time_sum(spec={SPEC}, n=10)", "time"]
    assert timed.samples == (7.013994036242366e-07, 7.192000339273364e-07, 3.621993528213352e-07)
    grid = (("spec", SPEC), ("n", "10"))
    version = "602ae9018e9ed7111cd75aa6d99a6c05c73ac60b7b2703e9817db4e0c5e7d022"
    assert timed.key == Key("suite.Grid.time_sum", grid, "time", "s", version)
    failed = figures[f"suite.Grid.time_sum(spec={SPEC}, n=1000)", "time"]
    assert (failed.status, failed.samples) == ("failed", ())
    assert failed.detail == "failed, or ran out of time or memory, in asv"
    skipped = figures["suite.Grid.time_sum(spec=dense, n=1000)", "time"]
    assert (skipped.status, skipped.samples) == ("skipped", ())
    tracked = figures[f"suite.Grid.track_bytes(spec={SPEC}, n=1000)", "bytes"]
    assert (tracked.samples, tracked.key.unit) == ((8000.0,), "bytes")
    assert figures["suite.peakmem_list", "peak_memory"].key.unit == "bytes"
    assert figures["suite.time_broken", "time"].status == "failed"
    assert figures["suite.track_nan", "nan"].status == "skipped"


def test_asv_without_samples_keeps_the_median_and_says_of_how_many(tmp_path: Path) -> None:
    def drop(document: Document) -> None:
        column = document["result_columns"].index("samples")
        for row in document["results"].values():
            del row[column:]

    figures = by_key(only(changed(ASV, tmp_path, drop)))
    timed = figures["suite.time_plain", "time"]
    assert timed.samples == (8.463333263838043e-07,)
    assert timed.detail == "median of 2 samples, quartiles 7.5867e-07 and 9.34e-07"


def test_asv_without_benchmarks_json_names_parameters_as_asv_does(tmp_path: Path) -> None:
    figures = by_key(only(changed(ASV, tmp_path, lambda document: None)))
    assert (f"suite.Grid.time_sum(param1={SPEC}, param2=10)", "time") in figures


def test_asv_a_whole_grid_that_failed_is_each_of_its_points(tmp_path: Path) -> None:
    def fail(document: Document) -> None:
        document["results"]["suite.Grid.time_sum"][0] = None

    run = only(changed(ASV, tmp_path, fail))
    grid = [m for m in run.measurements if m.key.benchmark == "suite.Grid.time_sum"]
    assert [m.status for m in grid] == ["failed"] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.update(version=3),
            "version: expected 1 or 2, got 3",
        ),
        (lambda d: d.pop("result_columns"), "result_columns: expected names, each once, got None"),
        (lambda d: d["params"].pop("machine"), "params.machine: expected a name, got None"),
        (
            lambda d: d["results"]["suite.Grid.time_sum"].__setitem__(0, [1.0]),
            "results.suite.Grid.time_sum: result: expected 4 values, got 1",
        ),
        (
            lambda d: d["results"]["suite.Grid.time_sum"].__setitem__(1, [3]),
            "results.suite.Grid.time_sum.params[0]: expected a valid list, got 3",
        ),
    ],
)
def test_asv_what_is_wrong_is_named(
    tmp_path: Path, change: Callable[[Document], object], message: str
) -> None:
    path = changed(ASV, tmp_path, change)
    with pytest.raises(InputError) as problem:
        read(path)
    assert str(problem.value) == f"{path}: {message}"


@given(
    st.one_of(
        st.text(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.none(),
        st.booleans(),
    )
)
def test_asv_parameters_keep_apart_and_come_back(value: object) -> None:
    plain = asv.plain(repr(value))
    assert asv.quoted(plain) == repr(value)


def test_asv_parameters_lose_the_quotes_of_plain_text_only() -> None:
    texts = ["'dense'", "10", "'10'", "None", "<function f>", "'a b'"]
    assert [asv.plain(text) for text in texts] == [
        "dense",
        "10",
        "'10'",
        "None",
        "<function f>",
        "a b",
    ]


@pytest.mark.parametrize(
    ("name", "unit", "metric", "expected"),
    [
        ("s.K.time_a", None, "time", "s"),
        ("s.timeraw_a", "seconds", "time", "s"),
        ("s.mem_a", None, "memory", "bytes"),
        ("s.peakmem_a", "bytes", "peak_memory", "bytes"),
        ("s.K.track_saved_bytes", "bytes", "saved_bytes", "bytes"),
        ("s.K.track_x", None, "x", "unit"),
    ],
)
def test_asv_name_tells_the_metric(name: str, unit: str, metric: str, expected: str) -> None:
    key = asv.key(name, (), (), unit)
    assert (key.metric, key.unit) == (metric, expected)


def test_pytest_benchmark_times_parameters_and_extra_info() -> None:
    run, figures = only(PYTEST), by_key(only(PYTEST))
    assert (run.source, run.machine, run.dirty) == ("pytest-benchmark", "a-node", False)
    assert run.commit == "77eb94d77692b874f3bfdbe32aa079b7524003fd"
    assert run.environment["cpu"] == "AMD EPYC"
    assert len(figures) == 7
    timed = figures["test_tiny.test_sum(n=10, spec=dense)", "time"]
    assert len(timed.samples) == 3
    assert timed.key.unit == "s"
    assert figures["test_tiny.test_sum(n=100, spec=dense)", "saved_bytes"].samples == (800.0,)
    assert figures["test_tiny.test_sum(n=100, spec=dense)", "saved_bytes"].key.unit == "bytes"
    assert (f"test_tiny.test_grouped(spec={SPEC})", "time") in figures


def test_pytest_benchmark_without_samples_keeps_the_median(tmp_path: Path) -> None:
    def drop(document: Document) -> None:
        for benchmark in document["benchmarks"]:
            del benchmark["stats"]["data"]
        document["commit_info"] = {"error": "no git"}
        document["benchmarks"][0]["params"] = {"case": "UNSERIALIZABLE[<object>]"}

    run = only(changed(PYTEST, tmp_path, drop))
    timed = by_key(run)["test_tiny.test_sum(param=10, spec=dense)", "time"]
    assert (timed.samples, timed.detail) == ((8.7650005298201e-07,), "median of 3 samples")
    assert run.commit == ""


def test_results_json_kernels_and_training() -> None:
    run, figures = only(RESULTS), by_key(only(RESULTS))
    assert (run.source, run.machine, run.dirty) == ("actprune", "70dd8a1ea2ef", False)
    assert run.commit == "01a7b76732b43eb86d8dd4bfa28d41c6216c21ae"
    assert run.environment["torch"] == "2.13.0+cpu"
    document = json.loads(RESULTS.read_text("utf-8"))
    kernel = document["kernels"][0]
    name = "kernels.compress(spec=dense, layer=fc1, dtype=float32, device=cpu)"
    assert figures[name, "time"].samples == tuple(ms / 1000 for ms in kernel["samples_ms"])
    assert figures[name, "nbytes"].samples == (float(kernel["nbytes"]),)
    assert figures[name, "ratio_to_dense"].key.unit == "ratio"
    trained = document["training"][0]
    name = "training(spec=dense, model=resmlp_tiny, data=fashion-mnist, epochs=1, seed=0)"
    times = figures[name, "time"]
    assert times.samples == tuple(ms / 1000 for ms in trained["step_samples_ms"])
    for metric, field, unit in [
        ("saved_bytes", "saved_bytes", "bytes"),
        ("saved_ratio", "saved_ratio", "ratio"),
        ("predicted_peak", "predicted_peak_bytes", "bytes"),
        ("measured_peak", "measured_peak_bytes", "bytes"),
        ("accuracy", "accuracy", "%"),
        ("accuracy_delta", "accuracy_delta", "points"),
        ("grad_cosine", "grad_cosine", "1"),
    ]:
        assert figures[name, metric].samples == (float(trained[field]),), metric
        assert figures[name, metric].key.unit == unit


def test_results_json_a_kernel_that_failed_its_check_says_why() -> None:
    failed = [m for m in only(RESULTS).measurements if m.status == "failed"]
    assert sorted(m.key.metric for m in failed) == ["ratio_to_dense", "rel_error", "time"]
    assert {m.detail for m in failed} == {"grad_weight is off by 0.1"}


def test_results_json_null_figures_are_skipped(tmp_path: Path) -> None:
    def drop(document: Document) -> None:
        document["training"][0].update(measured_peak_bytes=None, grad_cosine=None)

    skipped = [
        m for m in only(changed(RESULTS, tmp_path, drop)).measurements if m.status == "skipped"
    ]
    assert [m.key.metric for m in skipped] == ["measured_peak", "grad_cosine"]
    assert {m.detail for m in skipped} == {"null: not measured here, or not finite"}


def test_results_json_must_say_when_and_where(tmp_path: Path) -> None:
    path = changed(RESULTS, tmp_path, lambda d: d["environment"].pop("fingerprint"))
    with pytest.raises(InputError) as problem:
        read(path)
    assert str(problem.value) == f"{path}: environment.fingerprint: is missing"


def test_static_figures_per_kernel_variant_and_architecture(tmp_path: Path) -> None:
    path = tmp_path / "static.json"
    path.write_text(json.dumps(static_document()), "utf-8")
    run = only(path)
    assert (run.source, run.commit, run.machine) == ("actprune", "a" * 40, "m")
    assert [(m.key.metric, m.key.unit, m.samples) for m in run.measurements] == [
        ("registers", "1", (72.0,)),
        ("spill_store_bytes", "bytes", (0.0,)),
        ("shared_bytes", "bytes", (16384.0,)),
    ]
    assert {m.key.benchmark for m in run.measurements} == {"static.bsr.gather"}
    assert {m.key.params for m in run.measurements} == {
        (
            ("variant", "*fp32 BM=32 warps=4"),
            ("arch", "90"),
            ("dtype", "float32"),
            ("num_warps", "4"),
            ("num_stages", "2"),
        )
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=2), "schema: expected 1, got 2"),
        (lambda d: d["records"][0].pop("variant"), "records[0].variant: this key is required"),
        (lambda d: d["environment"].pop("date"), "environment.date: expected a text, got None"),
    ],
)
def test_static_what_is_wrong_is_named(
    tmp_path: Path, change: Callable[[Document], object], message: str
) -> None:
    document = static_document()
    change(document)
    path = tmp_path / "static.json"
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(InputError) as problem:
        read(path)
    assert str(problem.value) == f"{path}: {message}"


def test_an_ab_run_is_two_runs_whose_samples_belong_together(tmp_path: Path) -> None:
    path = tmp_path / "ab.json"
    write(path, ab_run())
    base, head = read(path)
    assert (base.source, base.commit, head.commit) == ("ab", "b" * 40, "c" * 40)
    assert (base.environment["torch"], head.environment["torch"]) == ("2", "3")
    assert base.environment["ab"] == head.environment["ab"]
    assert (base.environment["ab_side"], head.environment["ab_side"]) == ("base", "head")
    assert [m.samples for m in base.measurements] == [(1.0, 2.0), (3.0,)]
    assert [m.samples for m in head.measurements] == [(1.5, 2.5)]
    assert (base, head) == sides(read_ab(path))


def test_a_run_of_the_harness_is_itself(tmp_path: Path) -> None:
    run = only(ASV)
    write(tmp_path / "run.json", run)
    assert read(tmp_path / "run.json") == (run,)
    assert from_json((tmp_path / "run.json").read_bytes()) == run
    with pytest.raises(InputError, match="expected an A/B run"):
        read_ab(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"commit_hash": ', "not JSON (Expecting value: line 1 column 17 (char 16))"),
        ("", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("[1]", "expected a JSON object, got list"),
        (
            '{"name": "a package"}',
            "of no known tool: expected one of asv results, pytest-benchmark JSON,"
            " actprune results.json, actprune static JSON, ab.json or a run,"
            " github-action-benchmark data.js, criterion, nvbench JSON, google-benchmark JSON,"
            " hyperfine JSON",
        ),
        (
            json.dumps(json.loads(RESULTS.read_text("utf-8")) | {"kernels": [], "training": []}),
            "actprune results.json without a single measurement",
        ),
    ],
)
def test_what_no_tool_wrote_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as problem:
        read(path)
    assert str(problem.value) == f"{path}: {message}"


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"not JSON \('utf-8' codec can't decode"):
        read(path)
    with pytest.raises(InputError) as problem:
        read(tmp_path)
    assert str(problem.value) == f"{tmp_path}: cannot be read (Is a directory)"


@pytest.mark.parametrize("run", [ab_run(), only(ASV)], ids=["ab", "run"])
def test_json_and_back(run: Run | AbRun) -> None:
    assert from_json(to_json(run)) == run


def test_notes_of_before_are_texts_whose_code_is_derived() -> None:
    text, note = to_json(ab_run()), json.dumps(asdict(NOTE))
    assert note in text
    older = from_json(text.replace(note, '"clock jumped by +9 s", "device lost: x", "n"'))
    assert isinstance(older, AbRun)
    assert older.notes == (NOTE, Note("device-lost", "device lost: x"), Note("other", "n"))
    with pytest.raises(InputError, match=r"^x: notes\[0\].code: "):
        from_json(text.replace('"clock-jumped"', '"a clock"'), "x")


def test_notes_in_an_environment() -> None:
    notes = (NOTE, Note("other", "one; and two"))
    assert notes_from_text(notes_to_text(notes)) == notes
    assert (notes_to_text(()), notes_from_text("")) == ("", ())
    assert notes_from_text("clock jumped by +9 s; n") == (NOTE, Note("other", "n"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"schema": 1', '"schema": 2', "x: schema: expected 1, got 2"),
        ("[1.5, 2.5]", "[1.5]", f"x: {HEAD}: expected pairs, got 2 of base, 1 of head"),
        ("[1.5, 2.5]", "[NaN, 2.5]", "x: not JSON (NaN is no JSON number)"),
        ("[1.5, 2.5]", "[1e999, 2.5]", f"x: {HEAD}: head: expected finite numbers, got inf"),
        (
            '"status": "skipped"',
            '"status": "gone"',
            "x: pairs[1].status: expected 'ok', 'failed' or 'skipped', got 'gone'",
        ),
        ('"2026-01-02T03:04:05+00:00"', '"soon"', "x: date: expected ISO 8601, got 'soon'"),
        ('"base": "bbb', '"bass": "bbb', "x: base: this key is required"),
    ],
)
def test_json_that_is_wrong_is_named(old: str, new: str, message: str) -> None:
    text = to_json(ab_run())
    assert old in text
    with pytest.raises(InputError) as problem:
        from_json(text.replace(old, new), "x")
    assert str(problem.value) == message


def test_a_figure_stands_once(tmp_path: Path) -> None:
    run = only(PYTEST)
    twice = Run(**{**run.__dict__, "measurements": run.measurements[:1] * 2})
    with pytest.raises(InputError) as problem:
        to_json(twice)
    assert "expected once, stands 2 times" in str(problem.value)
