"""The gate's verdicts and exit codes, over made A/B runs with fixed seeds."""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from actprune_ci.cli import app
from actprune_ci.judge import from_store
from actprune_ci.judge.calibration_record import BenchmarkNoise, Calibration, Rate, Size
from actprune_ci.judge.gate import TOO_FEW, gate
from actprune_ci.judge.policy import Budget, Machine, Policy, Rule
from actprune_ci.judge.report import Finding, Report
from actprune_ci.judge.verdict import recurring
from actprune_ci.model.metrics import Metric
from actprune_ci.model.runs import RENEWED, AbRun, Key, Measurement, Note, Pairs, Run
from actprune_ci.model.serialise import write
from actprune_ci.publish.reports import terminal
from actprune_ci.readers.ab import sides
from actprune_ci.store import store
from actprune_common.errors import InputError
from actprune_common.git import git

TIME = Key("suite.Kernels.time_compress", (("spec", "bsr:block=1x32"), ("layer", "fc1")))
DENSE = Key(TIME.benchmark, (("spec", "dense"), ("layer", "fc1")))
BYTES = Key("suite.Kernels.track_saved_bytes", (), "saved_bytes", "bytes")
SPILLS = Key("static.product", (), "spills", "1")
ACCURACY = Key("training", (("seed", "0"),), "accuracy", "%")
INSTRUCTIONS = Key("suite.Kernels.track_instructions", (), "instructions", "1")
RATE = Rate(found=0, trials=2000, low=0, high=0.0015)


def timed(key: Key = TIME, slowdown: float = 0.0, pairs: int = 150, seed: int = 0) -> Pairs:
    """Pairs with a noise of 5 % a pair, and a drift that both sides share."""
    random = np.random.default_rng(seed)
    level = 0.01 * np.exp(np.cumsum(random.normal(0, 0.05, pairs)))
    base, head = (level * np.exp(random.normal(0, 0.035, pairs)) for _ in range(2))
    return Pairs(key, tuple(base.tolist()), tuple((head * (1 + slowdown)).tolist()))


def exact(key: Key, base: float, head: float) -> Pairs:
    return Pairs(key, (base,) * 3, (head,) * 3)


def run(*pairs: Pairs, hour: int = 1, base: str = "aaaa", head: str = "bbbb") -> AbRun:
    facts = {"torch": "2.13.0", "cpu": "EPYC"}
    date = f"2026-11-23T{hour:02}:00:00+00:00"
    return AbRun(base, head, date, "box", facts, {**facts, "torch": "2.13.1"}, pairs)


def twice(slowdown: float, key: Key = TIME) -> list[AbRun]:
    return [run(timed(key, slowdown, seed=hour), hour=hour) for hour in (1, 2)]


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding


def calibrated(machine: str = "box", spread: float = 0.05, floor: float = 0.01) -> Calibration:
    sizes = (Size(pairs=100, floor=floor, smallest_found=0.05),)
    benchmark = BenchmarkNoise(
        benchmark=TIME.benchmark,
        params=TIME.params,
        metric="time",
        unit="s",
        spread=spread,
        sizes=sizes,
    )
    return Calibration(
        schema=1,
        machine=machine,
        date="2026-11-22T00:00:00+00:00",
        command="actprune-ci calibrate",
        confidence=0.95,
        false_discovery_rate=0.01,
        repeats=2,
        smallest_effect=0.02,
        false_alarms=RATE,
        simulated=RATE,
        asv_rule=RATE,
        asv_in_sequence=RATE,
        coverage=RATE,
        bootstrap_coverage=RATE,
        benchmarks=(benchmark,),
    )


@pytest.mark.parametrize(
    ("slowdown", "outcome", "code"),
    [(0.06, "slower", 1), (-0.06, "faster", 0), (0.0, "same", 0), (0.012, "inconclusive", 4)],
)
def test_the_four_verdicts(slowdown: float, outcome: str, code: int) -> None:
    report = gate(Policy(), twice(slowdown))
    assert (only(report).outcome, report.code) == (outcome, code)
    effect = only(report).effect
    assert effect
    assert effect.low <= slowdown <= effect.high


def test_a_change_counts_only_when_it_recurs() -> None:
    first, second = twice(0.06)
    report = gate(Policy(), [first])
    assert (report.code, only(report).outcome) == (4, "inconclusive")
    assert only(report).detail == "slower in 1 of 2 A/B runs: repeat it"
    assert report.repeat == (str(TIME),)
    calm = run(timed(seed=2), hour=3)
    report = gate(Policy(), [first, calm])
    assert (only(report).outcome, only(report).detail) == ("same", "did not recur: slower, same")
    assert gate(Policy(), [second, calm, first]).code == 0  # by date: first, then second and calm
    assert gate(Policy.model_validate({"statistics": {"repeats": 1}}), [first]).code == 1


def test_the_last_runs_are_the_latest_whatever_zone_their_dates_are_in() -> None:
    first, second = twice(0.06)
    early = replace(run(timed(seed=9)), date="2026-11-23T05:00:00+09:00")  # before both
    assert gate(Policy(), [first, second, early]).code == 1
    late = replace(early, date="2026-11-22T20:00:00-09:00")  # after both
    assert gate(Policy(), [first, second, late]).code == 0


def test_facts_of_a_run_are_no_difference_of_environments() -> None:
    first = run(timed(), hour=1)
    sides_ = [{**first.environment_base, "commit_date": d, "command": d} for d in ("1", "2")]
    made = replace(first, environment_base=sides_[0], environment_head=sides_[1])
    assert gate(Policy(), [made]).environment == ()


def test_what_is_to_be_repeated_are_the_figures_and_what_they_are_ratios_to() -> None:
    over = Policy(rules=(Rule(params={"spec": "bsr:*"}, ratio_to="dense"),))
    pairs = timed(slowdown=0.5), timed(DENSE, seed=5)
    assert gate(over, [run(*pairs)]).repeat == (str(TIME), str(DENSE))
    many = [timed(Key("b", (("n", str(i)),)), 2.0, 8, i) for i in range(31)]
    assert gate(Policy(), [run(*many)]).repeat == ("b",)


def test_among_many_figures_a_change_needs_more_evidence() -> None:
    policy = Policy.model_validate({"statistics": {"repeats": 1, "confidence": 0.8}})
    weak = timed(slowdown=0.07, pairs=20, seed=1)
    alone = only(gate(policy, [run(weak)]))
    assert alone.outcome == "slower"
    assert alone.effect
    assert 0.01 / 60 < alone.effect.p < 0.01
    others = [timed(Key(f"other{i}"), pairs=20, seed=100 + i) for i in range(59)]
    findings = gate(policy, [run(weak, *others)]).findings
    assert next(f for f in findings if f.key == TIME).outcome == "inconclusive"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["slower", "slower"], "slower"),
        (["same", "slower", "slower"], "slower"),
        (["slower"], "inconclusive"),
        (["slower", "faster"], "inconclusive"),
        (["slower", "inconclusive"], "inconclusive"),
        (["slower", "same"], "same"),
        (["same"], "same"),
        (["inconclusive", "same"], "same"),
    ],
)
def test_recurring(verdicts: list[str], expected: str) -> None:
    assert recurring(verdicts, 2) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "base", "head"),
    [(BYTES, 10**12, 10**12 + 1), (SPILLS, 0, 1), (ACCURACY, 81.1, 80.1), (ACCURACY, 80.3, 79.8)],
)
def test_what_is_exact_is_found_at_once_and_always(key: Key, base: float, head: float) -> None:
    points = Rule(metric="accuracy", smallest_change=0.5)
    policy = Policy(rules=(points,))
    noise = [timed(Key(f"other{i}"), seed=i) for i in range(20)]
    report = gate(policy, [run(exact(key, base, head), *noise)])
    finding = next(f for f in report.findings if f.key == key)
    assert (finding.outcome, finding.word, report.code) == ("slower", "worse", 1)
    better = gate(policy, [run(exact(key, head, base))])
    assert (only(better).outcome, better.code) == ("faster", 0)
    assert only(gate(policy, [run(exact(key, base, base))])).outcome == "same"


@pytest.mark.parametrize(
    ("metric", "unit", "base", "head", "outcome", "code"),
    [
        ("occupancy", "1", 0.5, 0.75, "faster", 0),
        ("wgmma", "1", 0, 8, "faster", 0),
        ("global_loads_16_bytes", "1", 8, 4, "slower", 1),
        ("accuracy", "%", 81.0, 80.0, "slower", 1),
        ("hmma", "1", 8, 0, "changed", 0),  # as when wgmma takes its place
    ],
)
def test_an_improvement_is_one_whichever_way_the_metric_goes(
    metric: str, unit: str, base: float, head: float, outcome: str, code: int
) -> None:
    report = gate(Policy(), [run(exact(Key("static.product", (), metric, unit), base, head))])
    assert (only(report).outcome, report.code) == (outcome, code)


def test_bytes_that_nobody_declares_are_exact_where_they_repeat() -> None:
    key = Key("a.track_size", (), "size", "bytes")
    for head, outcome in ((1100, "slower"), (1010, "same")):  # 2 % count, as of what is noisy
        assert only(gate(Policy(), [run(exact(key, 1000, head))])).outcome == outcome
    one = gate(Policy(), [run(Pairs(key, (1000.0,), (1100.0,)))])
    assert only(one).outcome == "inconclusive"  # a single value tells nothing
    random = np.random.default_rng(0)
    base, head_ = (tuple((1e8 + random.normal(0, 1e6, 12)).tolist()) for _ in range(2))
    assert gate(Policy(), [run(Pairs(key, base, head_))]).code != 1  # it is memory in use


def test_what_is_exact_but_for_a_tolerance_is_judged_beyond_it() -> None:
    key = Key("suite.Executed.track_instructions", (), "instructions", "1")
    for head, outcome in ((1.009e9, "same"), (0.991e9, "same"), (1.02e9, "slower")):
        report = gate(Policy(), [run(exact(key, 1e9, head))])
        assert (only(report).outcome, only(report).certain) == (outcome, True)
    wide = Policy(rules=(Rule(metric="instructions", smallest_effect=0.05),))
    assert only(gate(wide, [run(exact(key, 1e9, 1.02e9))])).outcome == "same"
    loose = Policy(rules=(Rule(metric="nbytes", smallest_effect=0.05),))  # of noisy figures only
    nbytes = Key("a", (), "nbytes", "bytes")
    assert only(gate(loose, [run(exact(nbytes, 1000, 1001))])).outcome == "slower"


def test_rates_are_better_high_and_what_nobody_declares_is_only_described() -> None:
    for metric, unit, outcome, code in (
        ("images_per_second", "images/s", "slower", 1),
        ("top5_accuracy", "1", "changed", 4),  # nothing was judged
    ):
        key = Key("training", (), metric, unit)
        runs = [run(timed(key, -0.5, seed=hour), hour=hour) for hour in (1, 2)]
        report = gate(Policy(), runs)
        assert (only(report).outcome, report.code) == (outcome, code), metric
        said = [note.text for note in report.notes if note.code == "unknown-metric"]
        assert len(said) == (outcome == "changed")
    own = replace(runs[0], metrics={"top5_accuracy": Metric("higher")})
    assert only(gate(Policy(), [own, runs[1]])).outcome == "slower"
    declared = Policy(metrics={"top5_accuracy": Metric("higher")})
    assert only(gate(declared, runs)).outcome == "slower"


def test_a_run_that_is_given_twice_confirms_nothing(tmp_path: Path) -> None:
    first, second = twice(0.06)
    report = gate(Policy(), [first, first])
    assert (report.code, only(report).outcome) == (4, "inconclusive")
    told = "1 of the A/B runs are copies of another: counted once"
    assert Note("same-run", told) in report.notes
    later = replace(first, date="2026-11-23T09:00:00+00:00")  # a copy with another date
    assert gate(Policy(), [first, later]).code == 4
    cut = Pairs(TIME, first.pairs[0].base[:40], first.pairs[0].head[:40])
    for order in ([replace(first, pairs=(cut,)), first], [first, replace(first, pairs=(cut,))]):
        report = gate(Policy(), order)  # saved on its way, and whole
        assert (report.code, only(report).effect.changes.__len__()) == (4, 150)  # type: ignore[union-attr]
    for side in sides(first):  # as a store gives it back
        store.write(side, tmp_path)
    (again,) = from_store.paired(from_store.runs_of(tmp_path, ["aaaa", "bbbb"]))
    assert gate(Policy(), [first, again]).code == 4
    assert gate(Policy(), [first, second, again]).code == 1
    bytes_ = [run(exact(BYTES, 1, 1), hour=h) for h in (1, 2)]  # never vary: no copies by looks
    assert not [n for n in gate(Policy(), bytes_).notes if n.code == "same-run"]


def test_a_large_change_in_few_pairs_is_suspicious_and_not_good() -> None:
    report = gate(Policy(), [run(timed(slowdown=2.0, pairs=8, seed=1))])
    assert (only(report).outcome, only(report).word, report.code) == (
        "inconclusive",
        "suspicious",
        4,
    )
    assert only(report).detail == TOO_FEW
    assert report.repeat == (str(TIME),)
    calm = [exact(Key(f"b{i}", (), "nbytes", "bytes"), 1, 1) for i in range(20)]
    assert gate(Policy(), [run(timed(slowdown=2.0, pairs=8, seed=1), *calm)]).code == 4
    mild = gate(Policy(), [run(timed(slowdown=0.2, pairs=8, seed=1), *calm)])
    assert mild.code == 0  # one of 21 is open, and within the noise of its pairs
    better = gate(Policy(), [run(timed(slowdown=-0.6, pairs=8, seed=1), *calm)])
    assert better.code == 0
    warned = Policy(defaults=Rule(severity="warning"))
    assert gate(warned, [run(timed(slowdown=2.0, pairs=8, seed=1), *calm)]).code == 0


def test_good_needs_answers_to_most_of_what_is_asked() -> None:
    over = [Pairs(Key(f"other{i}"), (), (), "skipped", "the time was over") for i in range(20)]
    report = gate(Policy(), [run(exact(BYTES, 1, 1), *over)])
    assert (report.code, report.judged) == (4, (1, 21))
    low = Policy.model_validate({"statistics": {"least_judged": 0.04}})
    assert gate(low, [run(exact(BYTES, 1, 1), *over)]).code == 0
    unasked = Policy(rules=(Rule(benchmark="other*", asked=False),))
    report = gate(unasked, [run(exact(BYTES, 1, 1), *over)])
    assert (report.code, report.judged) == (0, (1, 1))
    noted = Policy(rules=(Rule(benchmark="other*", severity="info"),))
    assert gate(noted, [run(exact(BYTES, 1, 1), *over)]).judged == (1, 1)
    worse = gate(Policy(), [run(exact(BYTES, 1, 2), *over)])
    assert worse.code == 1  # a regression stays one
    text = terminal.render(gate(Policy(), [run(exact(BYTES, 1, 1), *over)]))
    assert text.startswith("inconclusive: 20 skipped, 1 same (1 of 21 judged)")
    assert text.count("the time was over") == 20


def test_an_accuracy_within_its_points_is_the_same() -> None:
    policy = Policy(rules=(Rule(metric="accuracy", smallest_change=0.5),))
    assert only(gate(policy, [run(exact(ACCURACY, 81.1, 80.7))])).outcome == "same"


def test_an_exact_figure_that_varies_is_judged_by_its_range() -> None:
    for head, outcome in (((3.0, 4.0), "slower"), ((1.0, 3.0), "inconclusive")):
        report = gate(Policy(), [run(Pairs(BYTES, (1.0, 2.0), head))])
        assert only(report).outcome == outcome


def test_a_ratio_to_dense_forgives_what_slows_both() -> None:
    pairs = timed(slowdown=0.1), timed(DENSE, 0.1, seed=5)
    again = timed(slowdown=0.1, seed=3), timed(DENSE, 0.1, seed=4)
    runs = [run(*pairs, hour=1), run(*again, hour=2)]
    plain, over = Policy(), Policy(rules=(Rule(params={"spec": "bsr:*"}, ratio_to="dense"),))
    assert next(f for f in gate(plain, runs).findings if f.key == TIME).outcome == "slower"
    finding = next(f for f in gate(over, runs).findings if f.key == TIME)
    assert finding.outcome in ("same", "inconclusive")
    assert finding.ratio_to == "dense"
    alone = gate(over, twice(0.1))
    assert only(alone).detail == "ratio to dense: it was not measured in the same rounds"


def test_vanished_new_failed_and_skipped_benchmarks_are_listed_by_name() -> None:
    gone = Pairs(Key("gone"), (1.0,), (), "skipped", "vanished")
    new = Pairs(Key("new"), (), (1.0,), "skipped", "new")
    failed = Pairs(Key("failed"), (1.0,), (), "failed", "out of memory")
    skipped = Pairs(Key("gpu"), (), (), "skipped", "needs a CUDA device")
    report = gate(Policy(), [run(exact(BYTES, 1, 1), gone, new, failed, skipped)])
    assert {str(f.key): f.outcome for f in report.findings if f.key != BYTES} == {
        "gone": "vanished",
        "new": "new",
        "failed": "failed",
        "gpu": "skipped",
    }
    assert report.code == 1
    lenient = Policy(defaults=Rule(severity="warning"))
    assert gate(lenient, [run(exact(BYTES, 1, 1), gone, failed)]).code == 0
    gone = Pairs(BYTES, (1.0,), (), "skipped", "vanished")
    back = run(exact(BYTES, 1, 1), hour=2)
    assert gate(Policy(), [run(gone), back]).code == 0  # it is there again


def test_nothing_measured_is_a_code_of_its_own() -> None:
    assert gate(Policy(), [run()]).code == 3
    assert gate(Policy(), [run(Pairs(TIME, (), (), "skipped", "vanished"))]).code == 3
    assert gate(Policy(), []).code == 3


def test_inconclusive_is_forbidden_only_where_a_slowdown_is_not_excluded() -> None:
    strict = Policy(defaults=Rule(forbid_inconclusive=True))
    assert gate(strict, twice(0.012)).code == 4
    assert only(gate(strict, twice(0.012))).forbidden
    report = gate(strict, [run(timed(slowdown=-0.02, seed=h), hour=h) for h in (1, 2)])
    assert (only(report).outcome, report.code) == ("inconclusive", 0)  # not slower, for sure


def test_machines_and_commits_are_never_mixed() -> None:
    first, second = twice(0)
    with pytest.raises(InputError, match=r"^A/B runs: machines are never mixed, got box, other$"):
        gate(Policy(), [first, replace(second, machine="other")])
    with pytest.raises(InputError, match=r"^A/B runs: heads are never mixed, got bbbb, cccc$"):
        gate(Policy(), [first, replace(second, head="cccc")])


def test_a_sentinel_that_changed_breaks_the_machine() -> None:
    sentinel = run(timed(slowdown=0.2), head="aaaa")
    report = gate(Policy(), [*twice(0.06), sentinel])
    assert report.code == 5
    assert report.broken[0].startswith(f"{TIME}: slower by ")
    assert report.broken[0].endswith("between equal commits")
    assert gate(Policy(), [*twice(0.0), run(timed(), head="aaaa")]).code == 0
    assert gate(Policy(), [run(timed(), head="aaaa")]).code == 0  # a sentinel alone


def test_a_sentinel_that_measured_nothing_is_no_data() -> None:
    skipped = Pairs(TIME, (), (), "skipped", "no compiler")
    assert gate(Policy(), [run(skipped, base="bbbb")]).code == 3
    assert gate(Policy(), [run(skipped, timed(DENSE), base="bbbb")]).code == 0


def test_a_broken_clock_hides_no_exact_regression() -> None:
    jumped = replace(twice(0)[0], notes=(Note("clock-jumped", "clock jumped by 3600 s"),))
    report = gate(Policy(), [jumped])
    assert (report.code, report.broken) == (5, ("clock jumped by 3600 s",))
    assert gate(Policy(machine=Machine(broken_by=("device-lost",))), [jumped]).code == 0
    worse = replace(jumped, pairs=(*jumped.pairs, exact(BYTES, 10, 11)))
    assert gate(Policy(), [worse]).code == 1
    backwards = run(Pairs(TIME, (0.1, 0.1), (0.1, -0.1)))
    report = gate(Policy(), [backwards])
    assert report.code == 5
    assert "a time of 0 or less: the clock jumped" in report.broken[0]


def test_noise_beyond_that_of_calibration_breaks_the_machine() -> None:
    assert gate(Policy(), twice(0), (), calibrated()).code == 0
    report = gate(Policy(), twice(0), (), calibrated(spread=0.001))
    assert report.code == 5
    assert "times that of calibration, allowed are 4" in report.broken[0]


def test_the_noise_floor_holds_a_change_back_on_its_machine_alone() -> None:
    assert gate(Policy(), twice(0.06), (), calibrated(floor=0.01)).code == 1
    held = gate(Policy(), twice(0.06), (), calibrated(floor=0.2))
    assert (held.code, only(held).outcome) == (4, "inconclusive")
    elsewhere = gate(Policy(), twice(0.06), (), calibrated("other", floor=0.2))
    assert elsewhere.code == 1
    assert "the calibration is of another machine (other)" in elsewhere.notes[0].text
    assert calibrated().floor(TIME, 25) == pytest.approx(0.02)  # grows as 1 / sqrt(n)
    assert calibrated().floor(TIME, 400) == pytest.approx(0.01)
    assert calibrated().floor(BYTES, 400) == 0


def results(*measurements: Measurement) -> Run:
    return Run("actprune", "bbbb", False, "2026-11-23T03:00:00Z", "box", {}, measurements)


@pytest.mark.parametrize(
    ("value", "bound", "outcome", "code"),
    [
        (0.105, "<= 0.105", "within budget", 0),
        (0.106, "<= 0.105", "over budget", 1),
        (1.0, "== 0", "over budget", 1),
        (-0.6, ">= -0.5", "over budget", 1),
    ],
)
def test_budgets_bind_head(value: float, bound: str, outcome: str, code: int) -> None:
    policy = Policy(budgets=(Budget(metric="m", bound=bound, owner="me"),))
    report = gate(policy, [], [results(Measurement(Key("a", (), "m", "ratio"), (value,)))])
    assert (only(report).outcome, report.code, only(report).owner) == (outcome, code, "me")
    assert only(report).value == value


def test_budgets_on_noise_ratios_and_nothing() -> None:
    noisy = Budget(metric="time", bound="<= 0.01", forbid_inconclusive=True)
    samples = tuple(np.random.default_rng(0).normal(0.01, 0.001, 50).tolist())
    report = gate(Policy(budgets=(noisy,)), [], [results(Measurement(TIME, samples))])
    assert (only(report).outcome, report.code) == ("inconclusive", 4)
    ratio = Budget(params={"spec": "bsr:*"}, bound="< 0.6", ratio_to="dense")
    both = results(Measurement(TIME, (0.5,)), Measurement(DENSE, (1.0,)))
    found = only(gate(Policy(budgets=(ratio,)), [], [both]))
    assert (found.value, found.outcome) == (0.5, "within budget")
    for required, outcome in ((False, "skipped"), (True, "vanished")):
        budget = Budget(benchmark="none", bound="< 1", required=required)
        report = gate(Policy(budgets=(budget,)), [run(exact(BYTES, 1, 1))])
        assert report.findings[-1].outcome == outcome
        assert report.code == required
    broke = results(Measurement(TIME, (), "failed", "out of memory"), Measurement(BYTES, (1.0,)))
    assert gate(Policy(budgets=(noisy,)), [], [broke]).findings[0].detail == "out of memory"


def cli(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app(), [str(word) for word in words])
    if isinstance(done.exception, InputError):
        return 2, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def files(tmp_path: Path) -> Sequence[object]:
    (tmp_path / "policy.yml").write_text("defaults: {owner: me}\n", "utf-8")
    for i, ab in enumerate(twice(0.06)):
        write(tmp_path / f"{i}.json", ab)
    return ["--policy", tmp_path / "policy.yml"]


def test_the_command_writes_every_report(tmp_path: Path, files: Sequence[object]) -> None:
    runs = ["--ab", tmp_path / "0.json", "--ab", tmp_path / "1.json"]
    code, said = cli("gate", *files, *runs, "--out", tmp_path / "out")
    assert code == 1
    head, subject, *_ = said.splitlines()
    assert head == "regression: 1 slower (1 of 1 judged)"
    assert subject == "aaaa → bbbb, box, 2026-11-23T02:00:00+00:00"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        f"gate.{end}" for end in ("html", "json", "md", "txt", "xml")
    ]
    code, said = cli("gate", *files, *runs, "--format", "json")
    assert (code, said[:1]) == (1, "{")


def test_the_command_says_its_version() -> None:
    assert cli("--version") == (0, f"actprune-ci {metadata.version('actprune')}\n")


def test_the_command_answers_bad_usage(tmp_path: Path, files: Sequence[object]) -> None:
    assert cli("gate", *files) == (
        2,
        "gate: expected --ab, --results, or --store with --base and --head",
    )
    assert cli("gate", *files, "--base", "a") == (
        2,
        "gate: --base, --head and --store go together",
    )
    assert cli("gate", *files, "--ab", tmp_path / "0.json", "--format", "pdf") == (
        2,
        "--format: expected one of text, markdown, json, junit, html, got 'pdf'",
    )
    code, said = cli("gate", *files, "--ab", tmp_path / "none.json")
    assert (code, said.endswith("none.json: cannot be read (No such file or directory)")) == (
        2,
        True,
    )
    code, said = cli("gate", *files, "--ab", tmp_path / "0.json", "--calibration", __file__)
    assert (code, "Invalid JSON" in said or "invalid JSON" in said) == (2, True)


def test_from_a_store(tmp_path: Path, files: Sequence[object]) -> None:
    folder = tmp_path / "store"
    for ab in twice(0.06):
        for side in sides(ab):
            store.write(side, folder)
    picked = ["--store", folder, "--base", "aa", "--head", "bbbb"]
    code, said = cli("gate", *files, *picked)
    assert (code, said.splitlines()[0]) == (1, "regression: 1 slower (1 of 1 judged)")
    code, said = cli("gate", *files, "--store", folder, "--base", "aaaa", "--head", "cccc")
    assert (code, said) == (2, f"{folder}: no clean run of commit cccc")


def test_commits_of_a_store_may_be_refs(tmp_path: Path, files: Sequence[object]) -> None:
    repo, folder = tmp_path / "repo", tmp_path / "store"
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    git(tmp_path, "init", "-q", "-b", "main", "repo")
    for _ in range(2):
        git(repo, *who, "commit", "-q", "--allow-empty", "-m", "a change")
    for name, bytes_ in (("HEAD~1", 10.0), ("HEAD", 11.0)):
        run = replace(results(Measurement(BYTES, (bytes_,))), commit=git(repo, "rev-parse", name))
        store.write(run, folder)
    words = ["gate", *files, "--store", folder, "--repo", repo, "--head", "main"]
    code, said = cli(*words, "--base", "HEAD~1")
    assert (code, said.splitlines()[0]) == (1, "regression: 1 worse (1 of 1 judged)")
    assert cli(*words, "--base", "HEAD~9") == (2, f"{repo}: has no commit HEAD~9")


def stored(folder: Path, commit: str, *figures: Measurement, env: str = "", hour: int = 1) -> None:
    facts = {"env_name": env} if env else {}
    date = f"2026-11-23T{hour:02}:00:00+00:00"
    store.write(Run("asv", commit, False, date, "box", facts, figures), folder)


def of_store(folder: Path) -> Report:
    runs = from_store.runs_of(folder, ("a" * 40, "b" * 40))
    return gate(Policy(), from_store.compared("a", "b", runs, Policy()))


def test_another_version_of_a_benchmark_is_not_compared(tmp_path: Path) -> None:
    work = Key("suite.track_nbytes", (), "nbytes", "bytes", "1")
    calm = Measurement(Key("suite.track_nnz", (), "nnz", "1", "1"), (5.0,))
    stored(tmp_path, "a" * 40, Measurement(work, (100.0,)), calm)
    stored(tmp_path, "b" * 40, Measurement(replace(work, version="2"), (200.0,)), calm)
    report = of_store(tmp_path)
    said = {str(f.key): (f.outcome, f.detail) for f in report.findings}
    assert said["suite.track_nbytes"] == ("skipped", RENEWED)
    assert (report.code, report.judged) == (0, (1, 1))


def test_what_no_side_measured_is_not_asked_for(tmp_path: Path) -> None:
    calm = Measurement(Key("suite.track_nnz", (), "nnz", "1"), (5.0,))
    nans = [Measurement(Key(f"suite.time_{i}"), (), "skipped", "not run") for i in range(9)]
    stored(tmp_path, "a" * 40, calm, *nans)
    stored(tmp_path, "b" * 40, calm, *nans)
    report = of_store(tmp_path)
    assert (report.code, report.judged) == (0, (1, 1))
    lost = [Measurement(Key(f"suite.time_{i}"), (1.0,)) for i in range(9)]
    stored(tmp_path, "a" * 40, calm, *lost, hour=2)  # base has them now
    assert (of_store(tmp_path).code, of_store(tmp_path).judged) == (4, (1, 10))


def test_environments_are_compared_each_with_itself(tmp_path: Path) -> None:
    key = Key("suite.track_nbytes", (), "nbytes", "bytes")
    for commit, old, new in (("a" * 40, 100.0, 50.0), ("b" * 40, 110.0, 50.0)):
        stored(tmp_path, commit, Measurement(key, (old,)), env="py3.10")
        stored(tmp_path, commit, Measurement(key, (new,)), env="py3.11", hour=2)
    report = of_store(tmp_path)
    assert {str(f.key): f.outcome for f in report.findings} == {
        "suite.track_nbytes(environment=py3.10)": "slower",
        "suite.track_nbytes(environment=py3.11)": "same",
    }
    assert report.code == 1


def test_a_store_compares_what_is_exact_and_refuses_other_machines(
    tmp_path: Path, files: Sequence[object]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    head = results(Measurement(BYTES, (11.0,)), Measurement(TIME, (1.0,)))
    base = replace(
        head, commit="aaaa", measurements=(Measurement(BYTES, (10.0,)), head.measurements[1])
    )
    for folder, machine in ((here, "box"), (there, "far")):
        store.write(head, folder)
        store.write(replace(base, machine=machine), folder)
    chosen = ["--base", "aaaa", "--head", "bbbb", "--format", "markdown"]
    code, said = cli("gate", *files, "--store", here, *chosen)
    assert code == 1
    assert "not interleaved: actprune-ci ab compares it" in said
    code, said = cli("gate", *files, "--store", there, *chosen)
    assert code == 3
    assert "machines are never mixed: base was measured on far" in said


def test_a_store_compares_all_that_a_tool_measured_in_several_runs(
    tmp_path: Path, files: Sequence[object]
) -> None:
    folder = tmp_path / "store"
    for commit, spills in (("aaaa", 0.0), ("bbbb", 8.0)):
        static = results(Measurement(SPILLS, (spills,)))
        training = results(Measurement(ACCURACY, (81.0,)))
        later = static.date.replace("2026", "2027")
        store.write(replace(static, commit=commit), folder)
        store.write(replace(training, commit=commit, date=later), folder)
    chosen = ["--store", folder, "--base", "aaaa", "--head", "bbbb", "--format", "json"]
    code, said = cli("gate", *files, *chosen)
    assert code == 1
    found = {f["benchmark"]: f["outcome"] for f in json.loads(said)["findings"] if f["effect"]}
    assert found == {"static.product": "slower", "training": "same"}


@pytest.mark.parametrize(
    ("base", "head", "outcome"),
    [
        ("ok", "failed", "failed"),
        ("skipped", "failed", "failed"),
        ("failed", "skipped", "skipped"),
        ("failed", "ok", "new"),
    ],
)
def test_the_state_of_head_is_told_once(base: str, head: str, outcome: str, tmp_path: Path) -> None:
    def side(status: str, commit: str, hour: int) -> Run:
        samples = (1.0,) if status == "ok" else ()
        figure = Measurement(BYTES, samples, status)  # type: ignore[arg-type]
        return Run(
            "actprune", commit * 40, False, f"2026-11-23T0{hour}:00:00+00:00", "box", {}, (figure,)
        )

    store.write(side(base, "a", 1), tmp_path)
    store.write(side(head, "b", 2), tmp_path)
    words = ["gate", "--store", str(tmp_path), "--base", "A" * 40, "--head", "b" * 40]
    out = tmp_path / "out"
    CliRunner().invoke(app(), [*words, "--policy", _no_budgets(tmp_path), "--out", str(out)])
    found = json.loads((out / "gate.json").read_text("utf-8"))["findings"]
    assert [each["outcome"] for each in found] == [outcome]


def _no_budgets(folder: Path) -> str:
    (folder / "policy.yml").write_text("rules: []\n", "utf-8")
    return str(folder / "policy.yml")


def test_head_does_not_declare_its_own_regression_away(tmp_path: Path) -> None:
    key = Key("bench", (), "rows", "rows")
    for commit, value, direction in (("a", 1.0, "lower"), ("b", 9.0, "none")):
        metrics = {"rows": Metric(direction, exact=True)}  # type: ignore[arg-type]
        date = f"2026-11-23T0{value:.0f}:00:00+00:00"
        figure = Measurement(key, (value,))
        made = Run("actprune", commit * 40, False, date, "box", {}, (figure,), metrics)
        store.write(made, tmp_path)
    words = ["gate", "--store", str(tmp_path), "--base", "a" * 40, "--head", "b" * 40]
    done = CliRunner().invoke(app(), [*words, "--policy", _no_budgets(tmp_path)])
    assert (done.exit_code, "1 worse" in done.output) == (1, True)


def test_what_was_never_measured_does_not_vanish(tmp_path: Path, files: Sequence[object]) -> None:
    folder = tmp_path / "store"
    skipped = Measurement(DENSE, (), "skipped", "no CUDA device")
    head = results(Measurement(BYTES, (10.0,)))
    figures = (*head.measurements, skipped, Measurement(SPILLS, (0.0,)))
    store.write(head, folder)
    store.write(replace(head, commit="aaaa", measurements=figures), folder)
    chosen = ["--store", folder, "--base", "aaaa", "--head", "bbbb", "--format", "json"]
    _, said = cli("gate", *files, *chosen)
    found = {f["name"]: f["outcome"] for f in json.loads(said)["findings"]}
    assert (found[str(DENSE)], found[str(SPILLS)]) == ("skipped", "vanished")


def noisy(key: Key, level: float, seed: int, pairs: int = 30) -> tuple[float, ...]:
    random = np.random.default_rng(seed)
    return tuple((level * np.exp(random.normal(0, 0.001, pairs))).tolist())


def test_files_of_two_tools_with_one_date_are_no_copies() -> None:
    report = gate(Policy(), [run(exact(BYTES, 1, 1)), run(exact(SPILLS, 0, 50))])
    assert (report.code, report.judged) == (1, (2, 2))
    assert not [note for note in report.notes if note.code == "same-run"]


def test_a_few_samples_all_far_over_a_budget_are_not_good() -> None:
    few = Measurement(TIME, (1.0, 1.1, 1.2))
    result = Run("hyperfine", "bbbb", False, "2026-11-23T01:00:00+00:00", "box", {}, (few,))
    report = gate(Policy(budgets=(Budget(bound="<= 0.1"),)), [], [result])
    assert (report.code, only(report).word) == (4, "suspicious")
    assert "every sample is over the budget" in only(report).detail
    assert gate(Policy(budgets=(Budget(bound="<= 1.1"),)), [], [result]).code == 0
    warned = Policy(budgets=(Budget(bound="<= 0.1", severity="warning"),))
    assert gate(warned, [], [result]).code == 0


def test_a_ratio_of_accuracies_is_not_told_in_points() -> None:
    own, dense = (replace(key, metric="accuracy", unit="%") for key in (TIME, DENSE))
    runs = [
        run(
            Pairs(own, noisy(own, 80, hour), noisy(own, 40, 9 * hour)),
            Pairs(dense, noisy(dense, 80, 7 * hour), noisy(dense, 80, 8 * hour)),
            hour=hour,
        )
        for hour in (1, 2)
    ]
    report = gate(Policy(rules=(Rule(metric="accuracy", ratio_to="dense"),)), runs)
    assert [f.outcome for f in report.findings] == ["slower", "same"]
    assert report.code == 1


def test_a_regression_seen_once_stays_open_until_a_run_speaks_against_it() -> None:
    calm = [timed(Key(f"b{i}"), seed=i) for i in range(8)]
    cut_off = run(timed(slowdown=0.1, pairs=5, seed=2), *calm, hour=2)
    for hour in (1, 3):  # whichever of them came first
        whole = run(timed(slowdown=0.1, seed=1), *calm, hour=hour)
        report = gate(Policy(), [whole, cut_off])
        assert (report.code, report.repeat) == (4, (str(TIME),))
        assert report.findings[0].detail == "slower in 1 of 2 A/B runs: repeat it"
    against = gate(Policy(), [run(timed(slowdown=0.1, seed=1), *calm), run(timed(), *calm, hour=2)])
    assert against.code == 0


def test_an_exact_figure_that_varies_far_beyond_its_range_is_suspicious() -> None:
    varied = Pairs(INSTRUCTIONS, (100, 100, 100, 131), (130, 1000, 1000, 1000))
    calm = [exact(Key(f"b{i}", (), "nbytes", "bytes"), 1, 1) for i in range(20)]
    report = gate(Policy(), [run(varied, *calm)])
    assert (report.code, report.findings[0].word) == (4, "suspicious")
    back = Pairs(INSTRUCTIONS, varied.head, varied.base)
    assert gate(Policy(), [run(back, *calm)]).code == 0


def test_where_no_metric_is_declared_nothing_is_good() -> None:
    value = Key("bench", (), "value", "widgets")
    report = gate(Policy(), [run(exact(value, 1, 10))])
    assert (report.code, report.judged) == (4, (0, 1))
    declared = Policy(metrics={"value": Metric("none")})  # somebody looked, and wants no verdict
    assert gate(declared, [run(exact(value, 1, 10))]).code == 0
    beside = gate(Policy(), [run(exact(value, 1, 10), exact(BYTES, 1, 1))])
    assert (beside.code, beside.judged) == (0, (1, 1))
    assert gate(Policy(), [run(Pairs(value, (), (), "skipped", "new"))]).code == 0
