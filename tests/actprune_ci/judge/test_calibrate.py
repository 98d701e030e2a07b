"""False alarms and power, on simulated noise and on a recording of two noisy cores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from actprune_ci.cli import app
from actprune_ci.judge import calibration_record
from actprune_ci.judge import statistics as st
from actprune_ci.judge.calibrate import (
    Noise,
    Trial,
    calibrate,
    false_alarms,
    recorded,
    smallest_found,
)
from actprune_ci.judge.gate import gate
from actprune_ci.judge.policy import Policy
from actprune_ci.model.runs import AbRun, Key
from actprune_ci.model.serialise import write
from actprune_ci.readers.ab import sides
from actprune_ci.store import store
from actprune_common.errors import InputError
from tests.actprune_ci.judge.test_gate import BYTES, TIME, exact, run, timed
from tests.actprune_ci.judge.test_statistics import noises

DATA = Path(__file__).parents[1] / "data"
RECORDING = DATA / "aa_recorded.npz"


def recording(path: Path) -> dict[Key, Noise]:
    """The recorded A/A comparisons of benchmarks/scripts/aa_noise.py, per kernel."""
    with np.load(path) as file:
        seconds = file["seconds"].astype(float)  # comparisons, kernels, pairs, sides
        names = [str(name) for name in file["kernels"]]
    return {
        Key(f"aa.{name}"): Noise(seconds[:, i, :, 0], seconds[:, i, :, 1])
        for i, name in enumerate(names)
    }


def simulated(name: str, d: st.Array) -> dict[Key, Noise]:
    """Comparisons whose log-ratios are d, the time itself drifting far more than that."""
    drift = np.cumsum(np.random.default_rng(9).normal(0, 0.05, d.shape), 1)
    level = 0.01 * np.exp(drift)
    return {Key(name): Noise(level, level * np.exp(d))}


def test_no_false_alarm_over_recorded_comparisons_of_two_noisy_cores() -> None:
    noise = recording(RECORDING)
    alarms = false_alarms(noise, Policy())
    assert len(alarms) >= 2000
    assert alarms.mean() <= 0.001
    in_sequence = np.concatenate([st.asv_rule(n.base[:-1], n.head[1:]) for n in noise.values()])
    assert in_sequence.mean() > 10 * max(alarms.mean(), 0.001)  # the same data by asv's rule
    spreads = [float(st.spread(n.d.ravel())) for n in noise.values()]
    assert max(spreads) > 0.1, "as noisy as it is said to be"


@pytest.mark.parametrize("pairs", [16, 30])
def test_no_false_alarm_under_simulated_noise(pairs: int) -> None:
    random = np.random.default_rng(pairs)
    for name, d in noises(random, (2500, pairs)).items():
        for scale in (0.46, 1.0, 1.73):  # a spread of 0.056, 0.121, 0.209 where it is 0.121
            alarms = false_alarms(simulated(name, scale * d), Policy())
            assert alarms.mean() <= (0.001 if name != "strong drift" else 0.002), (name, scale)


def test_asv_rule_cries_wolf_where_the_machine_drifts_between_the_sides() -> None:
    random = np.random.default_rng(0)
    chunks = random.normal(0, 0.121, (2000, 2, 1))  # two neighbouring chunks of the same code
    base, head = np.exp(chunks + random.normal(0, 0.03, (2000, 2, 10))).transpose(1, 0, 2)
    assert st.asv_rule(base, head).mean() > 0.3


@pytest.mark.parametrize(
    ("name", "scale", "pairs"),
    [("normal", 0.46, 130), ("heavy tails", 1, 160), ("two modes", 1, 200), ("normal", 1, 480)],
)
def test_a_slowdown_of_5_percent_is_found(name: str, scale: float, pairs: int) -> None:
    d = scale * noises(np.random.default_rng(pairs), (1200, pairs))[name]
    trial = Trial(d, Policy(), Policy().defaults.smallest_effect, 0.0, 10)
    assert trial.power(0.05) >= 0.95
    found = smallest_found(trial)
    assert found
    assert found <= 0.05
    assert trial.power(found) >= 0.95 > trial.power(0.8 * found)


def test_the_gate_itself_finds_5_percent_in_95_of_100_trials() -> None:
    found = 0
    for trial in range(100):
        other = timed(Key("other"), seed=999 + trial)
        runs = [
            run(timed(slowdown=0.05, pairs=150, seed=2 * trial + hour), other, hour=hour)
            for hour in (1, 2)
        ]
        found += gate(Policy(), runs).code == 1
    assert found >= 95


def test_nothing_is_found_in_too_few_pairs() -> None:
    d = noises(np.random.default_rng(0), (400, 6))["normal"]
    assert smallest_found(Trial(d, Policy(), 0.02, 0.0, 1)) is None


def a_a(hour: int, pairs: int = 60) -> AbRun:
    figures = timed(pairs=pairs, seed=hour), exact(BYTES, 1, 1)
    return replace(run(*figures, hour=hour), head="aaaa")


def test_calibration_states_rates_floors_and_power() -> None:
    runs = [a_a(hour) for hour in range(1, 21)]
    made = calibrate(runs, Policy(), "actprune-ci calibrate", (20, 120), 400)
    assert made.false_alarms.trials == 20  # 20 comparisons of the one noisy figure
    assert made.simulated.trials == 2 * 400
    assert made.simulated.found == 0
    (benchmark,) = made.benchmarks
    assert benchmark.key == TIME
    assert benchmark.spread == pytest.approx(0.05, rel=0.1)
    few, many = benchmark.sizes
    assert few.floor > many.floor > 0
    assert few.smallest_found is None or few.smallest_found > 0.08
    assert many.smallest_found == pytest.approx(0.047, abs=0.006)
    assert calibrate(runs, Policy(), "actprune-ci calibrate", (20, 120), 400) == made


def test_calibration_refuses_what_is_no_a_a_run() -> None:
    with pytest.raises(InputError, match=r"^calibrate: expected A/A runs, got aaaa against bbbb$"):
        calibrate([run(timed())], Policy())
    with pytest.raises(InputError, match=r"^calibrate: machines are never mixed, got box, far$"):
        calibrate([a_a(1), replace(a_a(2), machine="far")], Policy())
    with pytest.raises(InputError, match=r"^calibrate: no noisy figure in these A/A runs$"):
        calibrate([replace(run(exact(BYTES, 1, 1)), head="aaaa")], Policy())


def test_long_runs_are_cut_to_the_shortest() -> None:
    noise = recorded([a_a(1, 50), a_a(2, 20)], Policy())
    assert noise[TIME].base.shape == (3, 20)


def test_a_calibration_file_is_checked(tmp_path: Path) -> None:
    made = calibrate([a_a(1), a_a(2)], Policy(), sizes=(30,), draws=100)
    path = tmp_path / "calibration.json"
    calibration_record.write(path, made)
    assert calibration_record.read(path) == made
    path.write_text(path.read_text("utf-8").replace('"machine"', '"machin"'), "utf-8")
    with pytest.raises(InputError, match=r"calibration.json: machine: this key is required$"):
        calibration_record.read(path)
    with pytest.raises(
        InputError, match=r"none.json: cannot be read \(No such file or directory\)$"
    ):
        calibration_record.read(tmp_path / "none.json")


def test_the_command_reads_files_and_a_store(tmp_path: Path) -> None:
    (tmp_path / "policy.yml").write_text("", "utf-8")
    folder, out = tmp_path / "store", tmp_path / "calibration.json"
    runs = [a_a(1), a_a(2)]
    for i, ab in enumerate(runs):
        write(tmp_path / f"{i}.json", ab)
        for side in sides(ab):
            store.write(side, folder)
    shared = ["--policy", str(tmp_path / "policy.yml"), "--out", str(out), "--draws", "100"]
    made = []
    for words in (
        ["--ab", str(tmp_path / "0.json"), "--ab", str(tmp_path / "1.json")],
        ["--store", str(folder)],
    ):
        done = CliRunner().invoke(app(), ["calibrate", *shared, *words])
        assert done.exit_code == 0, done.output
        assert "gate, recorded            0 % (0 of 2, 95 % interval 0 to 77.6 %)" in done.output
        made.append(calibration_record.read(out).model_copy(update={"command": ""}))
    assert made[0] == made[1]
    done = CliRunner().invoke(app(), ["calibrate", *shared])
    assert str(done.exception) == "calibrate: expected A/A runs (--ab, --store), got none"
