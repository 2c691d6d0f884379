"""Every kernel compiles for every architecture without spilling, within the registers that its file claims."""

import pytest

from efcp_ref.gpu import compiler
from efcp_ref.gpu.catalogue import FOLDER, KERNELS
from efcp_ref.gpu.formats import FORMATS

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
# One compilation covers all kernels of a file: the file's tightest claim holds for all of them.
CLAIMS = {}
for _about in KERNELS.values():
    _key = (_about.file, _about.defines)
    CLAIMS[_key] = min(CLAIMS.get(_key, 255), _about.registers)
WITHOUT_FORMAT = ("cholesky.cu",)

pytestmark = pytest.mark.skipif(
    not compiler.available(), reason="neither nvcc nor NVRTC: no kernel was compiled for a GPU"
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("key", CLAIMS, ids=lambda key: "-".join([key[0], *key[1]]))
def test_no_spills_and_no_more_registers_than_claimed(key, architecture):
    file, defines = key
    for form in FORMATS if file not in WITHOUT_FORMAT else FORMATS[:1]:
        made = compiler.compiled(FOLDER / file, architecture, (*form.defines, *defines))
        assert made.cubin.startswith(b"\x7fELF")
        assert 0 < made.registers <= CLAIMS[key], (form, made.log)
        assert made.spilled == 0, (form, made.log)


def test_a_spill_is_seen(tmp_path):
    # 1,024 threads twice on a multiprocessor leave 32 registers: 16 rows in flight do not fit.
    for header in FOLDER.glob("*.cuh"):
        (tmp_path / header.name).write_text(header.read_text())
    source = (FOLDER / "lcg_rows.cu").read_text()
    assert source.count("(THREADS, BLOCKS)") == 1
    (tmp_path / "spills.cu").write_text(source.replace("(THREADS, BLOCKS)", "(THREADS, 2)"))
    made = compiler.compiled(tmp_path / "spills.cu", "sm_90", (*FORMATS[0].defines, "THREADS=1024", "ROWS=16"))
    assert made.spilled > 0


def test_what_the_compiler_says_is_shown(tmp_path):
    (tmp_path / "wrong.cu").write_text('extern "C" __global__ void f() { nonsense; }')
    with pytest.raises(RuntimeError, match="nonsense"):
        compiler.compiled(tmp_path / "wrong.cu", "sm_90", ())


def test_every_combination_is_there():
    assert len(CLAIMS) * len(ARCHITECTURES) >= 30
