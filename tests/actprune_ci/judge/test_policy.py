"""The policy: what it selects, its defaults, and what it says of a bad file."""

from pathlib import Path

import pytest

from actprune_ci.judge.policy import Policy, keeps, limit, matches, read
from actprune_ci.model.metrics import Metric
from actprune_ci.model.runs import Key
from actprune_common.errors import InputError

ROOT = Path(__file__).parents[3]
SPEC = ("spec", "bsr:block=1x32,sparsity=0.9")


def policy(folder: Path, text: str) -> Policy:
    path = folder / "policy.yml"
    path.write_text(text, "utf-8")
    return read(path)


def test_an_empty_policy_has_every_default(tmp_path: Path) -> None:
    assert policy(tmp_path, "") == Policy()
    assert Policy().statistics.repeats == 2
    assert Policy().rule(Key("any")).severity == "error"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("rulez: []", "1: rulez: unknown key; known are statistics, machine, defaults, rules, bud"),
        (
            "rules:\n- benchmark: a\n  metrik: time",
            "3: rules[0].metrik: unknown key; known are benchmark, params, metric, ratio_to",
        ),
        (
            "rules:\n- severity: grave",
            "2: rules[0].severity: expected 'error', 'warning' or 'info', got 'grave'",
        ),
        (
            "\nrules:\n- benchmark: a\n  smallest_effect: -1",
            "4: rules[0].smallest_effect: expected greater than 0, got -1",
        ),
        (
            "rules:\n- benchmark: /(/",
            "2: rules[0].benchmark: no regular expression: missing ), unterminated subpattern",
        ),
        (
            "budgets:\n- metric: spills\n  bound: few",
            "3: budgets[0].bound: expected a bound such as '<= 0.105', got 'few'",
        ),
        ("budgets:\n- metric: spills", "2: budgets[0].bound: this key is required"),
        (
            "statistics:\n  confidence: 1",
            "2: statistics.confidence: expected less than 1, got 1",
        ),
        (
            "statistics:\n  repeats: 2\n  repeats: 3",
            "3: statistics.repeats: given twice (also on line 2)",
        ),
        ("defaults:\n  metric: time", "1: defaults: applies to all figures, so without metric"),
        (
            "machine:\n  broken_notes: /clock jumped/",
            "1: machine: broken_notes was a pattern over the notes' texts: write broken_by, a list"
            " of their codes, such as [clock-jumped, device-lost]",
        ),
        (
            "machine:\n  broken_by: [clock]",
            "2: machine.broken_by[0]: expected 'clock-jumped', 'device-lost', ",
        ),
        ("rules: [", "1: not valid YAML: "),
        ("rules: &a []\nbudgets: *a", "2: *a: aliases are not supported"),
        ("just text", "1: expected keys and values, got 'just text'"),
    ],
)
def test_a_bad_policy_names_its_line(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(InputError) as problem:
        policy(tmp_path, text)
    said = str(problem.value).removeprefix(f"{tmp_path / 'policy.yml'}:")
    assert said.startswith(error)
    assert "\n" not in said


def test_a_policy_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yml: cannot be read \(No such file or directory\)"):
        read(tmp_path / "none.yml")
    (tmp_path / "bad.yml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match=r"bad.yml: expected UTF-8 text"):
        read(tmp_path / "bad.yml")


def test_patterns_are_globs_or_regular_expressions() -> None:
    assert matches("suite.*", "suite.Kernels.time")
    assert not matches("suite", "suite.Kernels.time")
    assert matches("/Ker.*time/", "suite.Kernels.time")
    assert matches("bsr:block=[a]*", "bsr:block=[a],x")  # brackets mean themselves
    assert not matches("/^time/", "suite.time")


def test_the_first_rule_that_selects_a_figure_is_its_rule(tmp_path: Path) -> None:
    made = policy(
        tmp_path,
        """
rules:
- {benchmark: "a.*", params: {spec: "bsr:*"}, owner: first}
- {benchmark: "a.*", owner: second}
defaults: {owner: nobody}
""",
    )
    assert made.rule(Key("a.b", (SPEC,))).owner == "first"
    assert made.rule(Key("a.b", (("spec", "dense"),))).owner == "second"
    assert made.rule(Key("a.b")).owner == "second"
    assert made.rule(Key("b")).owner == "nobody"


@pytest.mark.parametrize(
    ("metric", "unit", "direction", "exact"),
    [
        ("saved_bytes", "bytes", "lower", True),
        ("predicted_peak", "bytes", "lower", True),
        ("measured_peak", "bytes", "lower", False),
        ("peak_memory", "bytes", "lower", False),
        ("accuracy", "%", "higher", True),
        ("time", "s", "lower", False),
        ("occupancy", "1", "higher", True),
        ("wgmma", "1", "higher", True),
        ("global_loads_16_bytes", "bytes", "higher", True),
        ("hmma", "1", "none", True),
        ("images_per_second", "images/s", "higher", False),  # of its unit
        ("latency", "ms", "lower", False),
        ("size", "MiB", "lower", False),
        ("top5_accuracy", "1", "none", False),  # nobody says what it means
        ("value", "unit", "none", False),
    ],
)
def test_direction_and_exactness_are_what_the_metric_means(
    metric: str, unit: str, direction: str, exact: bool
) -> None:
    terms = Policy().terms(Key("a", (), metric, unit))
    assert (terms.direction, terms.exact) == (direction, exact)


def test_a_policy_and_a_file_declare_metrics_and_a_rule_has_the_last_word(tmp_path: Path) -> None:
    made = policy(
        tmp_path,
        """
metrics:
  top5_accuracy: {direction: higher, scale: difference, smallest: 0.2, exact: true}
rules:
- {metric: spills, exact: false, direction: none}
""",
    )
    terms = made.terms(Key("a", (), "top5_accuracy", "%"))
    assert (terms.direction, terms.exact, terms.smallest_change) == ("higher", True, 0.2)
    assert terms.metric.unit == "%"
    assert made.terms(Key("a", (), "spills", "1")).direction == "none"
    assert not made.terms(Key("a", (), "spills", "1")).exact
    own = {"score": Metric("higher"), "top5_accuracy": Metric("lower")}
    assert made.terms(Key("a", (), "score", "1"), own).direction == "higher"
    assert made.terms(Key("a", (), "top5_accuracy", "1"), own).direction == "higher"
    with pytest.raises(InputError, match=r"metrics\.x\.direction: expected 'lower', 'higher' or"):
        policy(tmp_path, "metrics: {x: {direction: up}}")


@pytest.mark.parametrize(
    ("metric", "unit", "before", "after", "matters"),
    [
        ("time", "s", 1.0, 1.021, True),
        ("time", "s", 1.0, 1.019, False),
        ("time", "s", 1.021, 1.0, True),
        ("accuracy", "%", 80.0, 79.51, False),
        ("accuracy", "%", 80.0, 79.5, True),
        ("accuracy", "%", 80.0, 79.4, True),
        ("nbytes", "bytes", 1000.0, 1001.0, True),
        ("registers", "1", 0.0, 1.0, True),
        ("instructions", "1", 1e9, 1.009e9, False),  # exact, but for what start-up does
        ("instructions", "1", 1e9, 1.011e9, True),
    ],
)
def test_a_change_matters_from_the_smallest_on(
    metric: str, unit: str, before: float, after: float, matters: bool
) -> None:
    terms = Policy().terms(Key("a", (), metric, unit))
    assert terms.matters(before, after) is matters


def test_bounds() -> None:
    assert limit(" <=0.105 ") == ("<=", 0.105)
    assert keeps(0.105, "<= 0.105")
    assert not keeps(0.106, "<= 0.105")
    assert keeps(0, "== 0")
    assert keeps(-0.5, ">= -0.5")
    assert not keeps(1, "< 1")
    assert keeps(2, "> 1")
    for bad in ("=< 1", "<= one", "0.1", "<= nan"):
        with pytest.raises(ValueError, match="expected a bound such as"):
            limit(bad)


def test_the_projects_own_policy() -> None:
    own = read(ROOT / "ci/policy.yml")
    compress = Key("suite.Kernels.time_compress", (SPEC, ("layer", "fc1")))
    assert own.rule(compress).severity == "error"
    assert own.rule(Key(compress.benchmark, (("spec", "dense"),))).severity == "warning"
    spills = Key("static.bsr.product", (), "spill_store_bytes", "bytes")
    assert [b.bound for b in own.budgets if b.selects(spills)] == ["== 0"]
    ratio = Key("kernels.compress", (SPEC,), "nbytes_ratio", "ratio")
    assert [b.bound for b in own.budgets if b.selects(ratio)] == ["<= 0.105"]
    assert all(rule.reason for rule in (*own.rules, *own.budgets, own.defaults))
