"""Ahead-of-time compilation: what the machine code says, and that no shipped kernel spills.

The suite interprets Triton kernels, and those cannot be compiled: each test here that compiles
runs the command in a process of its own.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from actprune import FORMATS
from actprune_bench.cli import main
from actprune_bench.cli import static as static_command
from actprune_bench.gpu_static.compilation import CompiledKernel, spilling, toolchain
from actprune_bench.gpu_static.kernel_variants import (
    PRIMITIVES,
    SHAPES,
    KernelVariant,
    named,
    shipped,
)
from actprune_bench.gpu_static.sass import MachineCode, occupancy, read_text
from actprune_bench.report.static import print_static
from actprune_common.errors import InputError

USAGE = """
Resource usage:
 Common:
  GLOBAL:0
 Function _kernel:
  REG:72 STACK:16 SHARED:1024 LOCAL:0 CONSTANT[0]:944 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = """
	.section	.text._kernel,"ax",@progbits
.text._kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @P0  LDG.E.128 R4, desc[UR28][R2.64] ;
        /*0020*/             @!P1  LDG.E.U16 R5, desc[UR28][R2.64+0x4] ;
        /*0030*/                   LDGSTS.E.BYPASS.128 [R19+0xe800], desc[UR28][R4.64], P4 ;
        /*0040*/              @UP0 UTMALDG.2D [UR8], [UR4] ;
        /*0050*/                   STL.64 [R1], R4 ;
        /*0060*/                   LDL.LU R44, [R1] ;
        /*0070*/                   HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0080*/                   HGMMA.64x64x16.F32 R24, gdesc[UR8], R24 ;
        /*0090*/                   UTCHMMA gdesc[UR8], gdesc[UR10], tmem[UR4] ;
        /*00a0*/                   STG.E.128 desc[UR28][R2.64], R4 ;
        /*00b0*/                   STG.E desc[UR28][R2.64], R4 ;
        /*00c0*/                   EXIT ;
.L_x_1:
        /*00d0*/                   BRA `(.L_x_1);
"""
SLOWEST = 600


def static(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-m", "actprune", "static", *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SLOWEST,
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What the command prints and writes for one format in bf16, for two architectures."""
    out = tmp_path_factory.mktemp("static") / "static.json"
    done = static(
        *("--format", "bsr:block=1x64", "--dtype", "bfloat16", "--shape", "25088x384x1536"),
        *("--shape", "49152x196x196", "--arch", "80", "--arch", "90", "--jobs", "1", "--out", out),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in out.parent.iterdir()] == ["static.json"]
    return done.stdout, json.loads(out.read_text())


def test_figures_are_read_from_the_machine_code() -> None:
    assert read_text(USAGE, SASS) == MachineCode(
        registers=72,
        stack_bytes=16,
        spill_store_bytes=8,
        spill_load_bytes=4,
        local_stores=1,
        local_loads=1,
        code_bytes=14 * 16,
        hmma=1,
        wgmma=1,
        tcgen05=1,
        global_loads=3,
        global_loads_async=1,
        global_loads_16_bytes=2,
        bulk_loads=1,
        global_stores=2,
        global_stores_16_bytes=1,
    )


def test_unreadable_machine_code_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"cuobjdump -res-usage: expected REG:..., got 'nothing'"):
        read_text("nothing", SASS)
    with pytest.raises(ValueError, match="nvdisasm: expected instructions, got ''"):
        read_text(USAGE, "")


@pytest.mark.parametrize(
    ("arguments", "blocks", "warps"),
    [
        # 168 registers: 5,376 a warp of 65,536: 12 warps; 3 blocks of 4
        ((90, 4, 168, 0), 3, 4),
        # 61,440 + 1,024 bytes of 167,936 or 233,472
        ((80, 4, 32, 61440), 2, 4),
        ((90, 4, 32, 61440), 3, 4),
        # 39 registers: 1,248, given as 1,280 to a warp: 51 warps, by four: 48
        ((90, 4, 39, 0), 12, 4),
        # nothing but the 64 warps, and the 32 blocks
        ((80, 4, 16, 0), 16, 4),
        ((80, 1, 16, 0), 32, 1),
        # 128 of 512 columns of tensor memory
        ((100, 4, 32, 0, 128), 4, 4),
        # more than there is
        ((80, 4, 32, 170000), 0, 4),
    ],
)
def test_occupancy_counted_by_hand(arguments: tuple[int, ...], blocks: int, warps: int) -> None:
    assert occupancy(*arguments) == blocks * warps / 64


def test_what_ships_covers_every_block_scope_and_dtype() -> None:
    configurations = list(shipped())
    specs = {configuration.spec for configuration in configurations}
    assert {"bsr:block=1x64,scope=row", "bsr:scope=global,select=priority"} <= specs
    assert any(spec.startswith("csr") for spec in specs)
    for block in ("32x32", "64x64", "128x128", "1x32", "1x64"):
        mine = [c for c in configurations if c.spec == f"bsr:block={block}"]
        assert {c.dtype for c in mine} == {"bfloat16", "float16", "float32", "tf32"}
        assert {(c.rows, c.features, c.out_features) for c in mine} == set(SHAPES)
    for name in PRIMITIVES:
        assert {c.dtype for c in configurations if c.spec == name} == {
            *("bfloat16", "float16", "float32")
        }


def test_a_variant_s_dtype_is_that_of_its_data() -> None:
    def dtype(*types: str, **constants: str) -> str:
        signature = tuple((f"p{i}", kind) for i, kind in enumerate(types))
        return KernelVariant("m", "k", signature, tuple(constants.items()), (), 4, 3).dtype

    assert dtype("*fp32", "*bf16") == "bfloat16"
    assert dtype("*fp32", PRECISION="tf32") == "tf32"
    assert dtype("*fp32", PRECISION="ieee") == "float32"
    assert dtype("*i8", "*i32") == "integer"


def test_no_variant_spills(compiled: tuple[str, dict[str, Any]]) -> None:
    records = compiled[1]["records"]
    assert spilling([CompiledKernel(**record) for record in records]) == []
    assert all(r["local_loads"] == r["local_stores"] == r["stack_bytes"] == 0 for r in records)


def test_every_kernel_is_there_for_both_architectures(
    compiled: tuple[str, dict[str, Any]],
) -> None:
    kernels = {(record["kernel"], record["arch"]) for record in compiled[1]["records"]}
    names = ["bsr block_norms", "bsr gather", "bsr grad_weight", "bsr scatter"]
    names += ["selection select_column"]
    assert {(name, arch) for name in names for arch in (80, 90)} <= kernels


def test_products_run_in_tensor_cores(compiled: tuple[str, dict[str, Any]]) -> None:
    products = [r for r in compiled[1]["records"] if r["kernel"] == "bsr grad_weight"]
    for record in products:
        assert (record["hmma"] > 0, record["wgmma"] > 0) == (
            record["arch"] == 80,
            record["arch"] == 90,
        )
        assert record["dtype"] == "bfloat16"
        assert record["shared_bytes"] > 0


def test_copies_move_16_bytes_at_a_time(compiled: tuple[str, dict[str, Any]]) -> None:
    """Where rows are aligned: of 196 patches 8 bytes at a time are the most."""
    for record in compiled[1]["records"]:
        aligned = " features " in record["variant"]
        if record["kernel"] == "bsr block_norms":
            assert record["global_loads_16_bytes"] == (record["global_loads"] if aligned else 0)
            assert record["global_loads"] <= 8
        if record["kernel"] == "bsr gather":
            assert record["global_stores_16_bytes"] == record["global_stores"] - 1  # block_rows
            assert record["global_loads_16_bytes"] == (4 if aligned else 0)


def test_records_are_flat_complete_and_named_once(compiled: tuple[str, dict[str, Any]]) -> None:
    records = compiled[1]["records"]
    keys = {"kernel", "variant", "specs", "dtype", "arch", "num_warps", "num_stages"}
    keys |= {"shared_bytes", "tensor_memory", "occupancy", *MachineCode.__dataclass_fields__}
    assert all(set(record) == keys for record in records)
    names = [(record["kernel"], record["variant"], record["arch"]) for record in records]
    assert len(set(names)) == len(names)
    assert {spec for record in records for spec in record["specs"]} == {
        "bsr:block=1x64,sparsity=0.9"
    }
    assert all(0 < r["occupancy"] <= 1 and 0 < r["registers"] <= 255 for r in records)
    environment = compiled[1]["environment"]
    assert environment["triton"]
    assert environment["ptxas"]
    assert "actprune static --format bsr:block=1x64" in environment["command"]


def test_the_table_has_a_line_per_kernel_dtype_and_architecture(
    compiled: tuple[str, dict[str, Any]],
) -> None:
    printed, written = compiled
    rows = [line.strip() for line in printed.splitlines()]
    lines = [row for row in rows if row.startswith("bsr grad_weight")]
    assert [line.split()[2:4] for line in lines] == [["bfloat16", "80"], ["bfloat16", "90"]]
    assert "HMMA" in lines[0]
    assert "wgmma" in lines[1]
    total = next(row for row in rows if row.startswith("all "))
    assert total.split()[1] == str(len(written["records"]))


def test_spills_are_red(compiled: tuple[str, dict[str, Any]]) -> None:
    values = compiled[1]["records"][0] | {"spill_store_bytes": 24, "spill_load_bytes": 16}
    record = CompiledKernel(**values)
    console = Console(
        file=io.StringIO(), record=True, width=140, force_terminal=True, color_system="standard"
    )
    print_static([record], console)
    assert "\x1b[1;31m40\x1b[0m" in console.export_text(styles=True)
    assert spilling([record]) == [record]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arch", "75"], "--arch: expected one of 80, 90, 100, got 75"),
        (["--format", "dense"], "format: expected one with Triton kernels (coo, csr, bsr), got "),
        (
            ["--format", "ell"],
            f"spec: expected a format of {', '.join(FORMATS)}, got 'ell'",
        ),
        (["--format", "bsr", "--dtype", "fp8"], "dtype: expected one of bfloat16, float16, float"),
        (["--format", "bsr", "--shape", "8x8"], "--shape: expected ROWSxFEATURESxOUT_FEATURES, "),
        (["--dtype", "tf32"], "--format: expected with --dtype and --shape, got none"),
        (["--out", "/dev/null"], "/dev/null: is there already; name another file"),
    ],
)
def test_bad_input(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert refused(words, monkeypatch, capsys).startswith(f"actprune: error: {message}")


def test_interpreted_kernels_cannot_be_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert refused([], monkeypatch, capsys) == (
        "actprune: error: TRITON_INTERPRET: interpreted kernels cannot be compiled; unset it\n"
    )


def refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What the command says on stderr before it compiles anything."""
    monkeypatch.setattr(sys, "argv", ["actprune", "static", *words])
    with pytest.raises(SystemExit) as done:
        main()
    printed, said = capsys.readouterr()
    assert (done.value.code, printed) == (2, "")
    return said


def test_a_spill_makes_the_exit_code_1(
    compiled: tuple[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(sys, "argv", ["actprune", "static"])
    found = CompiledKernel(**compiled[1]["records"][0] | {"spill_load_bytes": 4})
    monkeypatch.setattr(static_command, "compile_all", lambda *args, **kwargs: [found])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 1
    assert found.kernel in capsys.readouterr().out


def test_a_kernel_that_does_not_compile_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("_gather for sm_90, *bf16: no memory")

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(sys, "argv", ["actprune", "static"])
    monkeypatch.setattr(static_command, "compile_all", fail)
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 1
    assert capsys.readouterr().err == "actprune: error: _gather for sm_90, *bf16: no memory\n"


def test_an_assembler_that_triton_lacks_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.5.0 has one for all architectures."""
    nvidia = SimpleNamespace(ptxas=SimpleNamespace(version="12.8"))
    monkeypatch.setattr("triton.knobs.nvidia", nvidia)
    assert toolchain() == {"ptxas": "12.8", "ptxas_blackwell": None}


def test_a_format_without_kernels_names_those_with() -> None:
    with pytest.raises(InputError, match="expected one with Triton kernels"):
        named(["dense"])


@pytest.mark.slow
def test_no_shipped_kernel_spills(tmp_path: Path) -> None:
    """Every configuration for every architecture: minutes."""
    done = static("--out", tmp_path / "static.json", "--jobs", str(os.cpu_count() or 1))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    records = json.loads((tmp_path / "static.json").read_text())["records"]
    products = [r for r in records if r["kernel"] == "bsr grad_weight" and r["dtype"] == "bfloat16"]
    units = {80: "hmma", 90: "wgmma", 100: "tcgen05"}
    assert all(record[units[record["arch"]]] for record in products)
    assert {record["arch"] for record in products} == set(units)
