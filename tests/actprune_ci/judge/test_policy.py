"""The policy: what it selects, its defaults, and what it says of a bad file."""

from pathlib import Path

import pytest

from actprune_ci.judge.policy import Policy, keeps, limit, matches, read
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


def test_direction_and_exactness_follow_the_figure() -> None:
    rule = Policy().defaults
    assert rule.better(Key("training", (), "accuracy", "%")) == "higher"
    assert rule.better(Key("a")) == "lower"
    for metric, unit, exact in (
        ("saved_bytes", "bytes", True),
        ("predicted_peak", "bytes", True),
        ("measured_peak", "bytes", False),
        ("peak_memory", "bytes", False),
        ("accuracy", "%", True),
        ("time", "s", False),
    ):
        assert rule.is_exact(Key("a", (), metric, unit)) is exact, metric
    assert rule.is_exact(Key("static.bsr.product", (), "registers", "1"))
    assert not rule.model_copy(update={"exact": False}).is_exact(Key("a", (), "spills", "1"))


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
