"""benchmarks/amd_report.py on small kernels whose registers and instructions are known. No GPU, no ROCm."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import amd_report  # noqa: E402
from amd_code import flow, instructions, objects  # noqa: E402
from amd_code.machines import MACHINES  # noqa: E402

PROGRAMS = ("clang++-19", "llvm-objdump-19", "llvm-readelf-19", "llvm-objcopy-19", "llvm-cxxfilt-19", "ld.lld-19")
MISSING = [program for program in PROGRAMS if not shutil.which(program)]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs clang-19, llvm-19 and lld-19: no {', '.join(MISSING)}")

ARCHS = ("gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1201")
# The few words of HIP that the kernels and the compiler use, so that nothing else is needed.
PRELUDE = """
struct dim3 { unsigned x, y, z; };
extern "C" int hipLaunchKernel(const void *, dim3, dim3, void **, unsigned long, void *);
#define GLOBAL __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(256, 256)))
#define SHARED __attribute__((shared))
#define DEVICE __attribute__((device))
typedef float Float4 __attribute__((ext_vector_type(4)));
DEVICE inline int lane() { return __builtin_amdgcn_workitem_id_x(); }
"""


def compile_kernels(source: str, folder: Path, archs=ARCHS, flags=()) -> tuple[Path, str]:
    """(object file, what the compiler said)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernels.hip").write_text(PRELUDE + source)
    out = folder / "kernels.hip.o"
    command = ["clang++-19", "-x", "hip", "-nogpuinc", "-nogpulib", "-O2", "-std=c++17", "-c", "-o", out, *flags]
    command += [*(f"--offload-arch={arch}" for arch in archs), folder / "kernels.hip"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return out, run.stderr


def rows(source: str, folder: Path, archs=ARCHS) -> dict[tuple[str, str], amd_report.Row]:
    """{(architecture, family): row}."""
    found = amd_report.rows_of(compile_kernels(source, folder, archs)[0])
    return {(row.kernel.arch, row.label.family): row for row in found}


COPY = """
extern "C" GLOBAL void copy(const Float4 *in, Float4 *out, int n) {
  if (lane() < n) out[lane()] = in[lane()];
}
"""
USE_REGISTERS = """
extern "C" GLOBAL void registers_%(count)d(float *out) {
  asm volatile("" ::: "v%(last)d");
  out[lane()] = 1;
}
"""
USE_LDS = """
extern "C" GLOBAL void lds(float *out, int at) {
  SHARED float values[5120];
  values[lane()] = at;
  __builtin_amdgcn_s_barrier();
  out[lane()] = values[at];
}
"""


def test_registers_and_waves_are_those_the_compiler_reports(tmp_path):
    source = COPY + USE_LDS + "".join(USE_REGISTERS % {"count": n, "last": n - 1} for n in (40, 72, 100, 128, 200))
    out, said = compile_kernels(source, tmp_path, flags=["-Rpass-analysis=kernel-resource-usage"])
    texts = dict.fromkeys(re.findall(r"Function Name: (\w+)", said))
    reported = re.findall(
        r"Function Name: (\w+).*?SGPRs: (\d+).*?ScratchSize \S+ (\d+).*?Occupancy \S+ (\d+).*?LDS Size \S+ (\d+)",
        said,
        re.S,
    )
    found = [row for row in amd_report.rows_of(out)]
    ours = [(r.kernel.name, r.kernel.sgpr, r.kernel.scratch, r.waves, r.kernel.lds) for r in found]
    assert len(found) == len(ARCHS) * len(texts)
    assert sorted(ours) == sorted((name, *map(int, numbers)) for name, *numbers in reported)


def test_a_path_without_a_loop(tmp_path):
    for (arch, _), row in rows(COPY, tmp_path).items():
        assert (row.loop, row.path.loads, row.path.stores) == (False, [16], [16]), arch
        assert row.bytes == 32 * MACHINES[arch].wave
        assert row.path.matrix == 0 and 2 <= row.path.vector < 12 and row.path.lds == 0
        assert row.slots == pytest.approx(row.path.vector_cycles / (row.bytes / MACHINES[arch].memory_rate))


def test_the_path_takes_the_widest_stores(tmp_path):
    source = """
extern "C" GLOBAL void tail(const Float4 *in, float *out, int n) {
  Float4 value = in[lane()];
  if (n % 4 == 0) {
    *(Float4 *)(out + 4 * lane()) = value;
  } else {
    for (int i = 0; i < 4; ++i) if (4 * lane() + i < n) out[4 * lane() + i] = value[i];
  }
}
"""
    for (arch, _), row in rows(source, tmp_path).items():
        assert (row.path.loads, row.path.stores) == ([16], [16]), arch
        assert not list(amd_report.problems(row))


def test_the_main_loop(tmp_path):
    source = """
extern "C" GLOBAL void sum(const Float4 *in, Float4 *out, int n) {
  Float4 total = 0;
  #pragma nounroll
  for (int i = lane(); i < n; i += 256) total += in[i];
  out[lane()] = total;
}
"""
    for (arch, _), row in rows(source, tmp_path).items():
        assert (row.loop, row.path.loads, row.path.stores) == (True, [16], []), arch
        assert 3 <= row.path.vector < 12


def test_of_nested_loops_the_inner_one_counts(tmp_path):
    source = """
extern "C" GLOBAL void sums(const Float4 *in, Float4 *out, int n, int m) {
  #pragma nounroll
  for (int j = 0; j < m; ++j) {
    Float4 total = in[j * n];
    #pragma nounroll
    for (int i = lane(); i < n; i += 256) total += in[j * n + i];
    out[j * 256 + lane()] = total;
  }
}
"""
    for (arch, _), row in rows(source, tmp_path).items():
        assert (row.loop, row.path.loads, row.path.stores) == (True, [16], []), arch


MATRIX = """
typedef _Float16 Half4 __attribute__((ext_vector_type(4)));
extern "C" GLOBAL void product(const Half4 *a, Float4 *out, int n) {
  Float4 sum = 0;
  #pragma nounroll
  for (int i = 0; i < n; ++i) {
    sum = __builtin_amdgcn_mfma_f32_16x16x16f16(a[64 * i + lane()], a[64 * i + lane()], sum, 0, 0, 0);
  }
  out[lane()] = sum;
}
"""


def test_matrix_instructions(tmp_path):
    found = rows(MATRIX, tmp_path, ("gfx90a", "gfx942"))
    for (arch, _), row in found.items():
        assert (row.loop, row.path.matrix, row.path.loads) == (True, 1, [8]), arch
    # facts of the parts: 32 and 16 cycles for a 16x16x16
    assert [found[arch, "product"].path.matrix_cycles for arch in ("gfx90a", "gfx942")] == [32, 16]


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("global_load_dwordx3", "loads", 12),
        ("flat_load_ubyte_d16_hi", "loads", 1),
        ("global_load_d16_hi_b16", "loads", 2),
        ("global_load_u8", "loads", 1),
        ("buffer_load_sshort", "loads", 2),
        ("global_store_b128", "stores", 16),
        ("global_store_short_d16_hi", "stores", 2),
        ("global_store_d16_hi_b8", "stores", 1),
    ],
)
def test_widths(name, kind, size):
    assert getattr(instructions.count([name], MACHINES["gfx942"]), kind) == [size]


def test_what_cannot_be_understood_is_an_error():
    with pytest.raises(ValueError, match="unknown width: nonsense"):
        instructions.count(["global_load_nonsense"], MACHINES["gfx942"])
    with pytest.raises(ValueError, match="calls functions"):
        flow.blocks(["\ts_swappc_b64 s[30:31], s[4:5]", "\ts_endpgm"])
    with pytest.raises(ValueError, match="no uncompressed clang bundle"):
        objects.unbundle(b"CCOB" + bytes(100), "kernels.o")


DECODE = """
namespace rocforge { namespace formats { struct Q8_0; }
template <class Format, class Out, bool one_row> GLOBAL void decode_rows_kernel(Out *out) {
  const float value = lane();
  %s
}
template GLOBAL void decode_rows_kernel<formats::Q8_0, float, true>(float *);
}
"""
WIDE = "*(Float4 *)(out + 4 * lane()) = value;"
NARROW = "out[4 * lane()] = value;"
SPILLING = """
extern "C" GLOBAL __attribute__((amdgpu_num_vgpr(16))) void spills(const float *in, float *out) {
  float values[64];
  for (int i = 0; i < 64; ++i) values[i] = in[lane() * 64 + i];
  for (int i = 0; i < 64; ++i) for (int j = 0; j < 64; ++j) out[lane() + i * j] = values[i] * values[j];
}
"""


def check(source: str, folder: Path, capsys) -> tuple[int, str]:
    """Exit status and last lines of amd_report.py --check on kernels of the CMake target of a decode_rows shard."""
    file, _ = compile_kernels(source, folder / "rocforge_decode_rows_kernel_0.dir")
    status = amd_report.main(["--objects", str(file), "--check"])
    return status, capsys.readouterr().out


def test_check_passes_good_kernels(tmp_path, capsys):
    status, out = check(DECODE % WIDE + COPY, tmp_path, capsys)
    assert status == 0, out
    assert "0 problems in 10 kernels" in out
    assert all(f"{arch} ({MACHINES[arch].part})" in out for arch in ARCHS)
    assert "decode_rows, one row: 1 kernels" in out and "Q8_0 float32" in out


def test_check_finds_narrow_stores(tmp_path, capsys):
    status, out = check(DECODE % NARROW, tmp_path, capsys)
    assert status == 1
    assert all(f"{arch} decode_rows, one row Q8_0 float32: stores 4 bytes a lane, not 16" in out for arch in ARCHS)


def test_check_finds_scratch_and_spills(tmp_path, capsys):
    status, out = check(SPILLING, tmp_path, capsys)
    assert status == 1
    for arch in ARCHS:
        assert re.search(rf"{arch} decode_rows: spills: [1-9]\d* bytes of scratch", out), out
        assert re.search(rf"{arch} decode_rows: spills: [1-9]\d* vector and \d+ scalar registers spilled", out), out


def test_check_finds_a_matrix_kernel_without_matrix_instructions(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(amd_report, "ROOT", tmp_path)
    source = tmp_path / "csrc/hip/decode_rows_kernel.hip"
    source.parent.mkdir(parents=True)
    source.write_text('#include "hip/tile_loops.h"\n')
    source.with_name("tile_loops.h").write_text('#include "hip/mma.h"\n')
    amd_report.includes.cache_clear()
    status, out = check(COPY, tmp_path, capsys)
    assert status == 1
    assert [arch for arch in ARCHS if f"{arch} decode_rows: copy: no matrix instructions" in out] == [
        arch for arch in ARCHS if MACHINES[arch].matrix_rate
    ]


def test_check_of_nothing_fails(tmp_path, capsys):
    status, _ = check("", tmp_path, capsys)
    assert status == 1
