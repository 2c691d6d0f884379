"""True verdicts of PyTorch's PowerSGD hook, of `torch.optim.Adagrad`, and of naive PyTorch code: docs/findings.md."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from efcp_ref.oracle.core import Case, Declared  # noqa: E402
from efcp_ref.oracle.judge import check_target, judge_case  # noqa: E402
from efcp_ref.oracle.targets import Local  # noqa: E402
from efcp_ref.targets import torch_adagrad, torch_powersgd  # noqa: E402

MGS = Declared(orthogonalisation="mgs")


def hook(g: np.ndarray, Q: np.ndarray) -> object:
    """Judge the hook on one case of our own."""
    case = Case("power_compress", "generic", "by hand", 0, 0, {"g": g, "Q": Q})
    return judge_case(Local({"power_compress": torch_powersgd.power_compress}, MGS), case)[0]


# ------------------------------------------------------------------ PowerSGD


def test_powersgd_fails_on_rank_deficient_products_alone() -> None:
    """The verdict is fail, and every failing case has rank(M Q) < rho: 0/0 in Gram-Schmidt."""
    report = check_target("efcp_ref.targets.torch_powersgd", cases=40, shrink_seconds=0)["power_compress"]
    assert report.verdict == "fail"
    assert report.passed >= 60
    for failure in report.failures:
        case, first = failure.verdict.case, failure.verdict.first
        product = case.arguments["g"].reshape(len(case.arguments["g"]), -1) @ case.arguments["Q"]
        assert np.linalg.matrix_rank(product.astype(float)) < case.arguments["Q"].shape[1]
        assert first is not None
        assert (first.stage, first.tier, first.reason) == ("P", "T0", "P holds NaN or infinity, must be finite")


@pytest.mark.parametrize(("rho", "verdict"), [(1, "fail"), (2, "fail"), (3, "pass"), (4, "pass")])
def test_a_zero_gradient_gives_nan_up_to_rank_two(rho: int, verdict: str) -> None:
    """Ranks 1 and 2 take PyTorch's Gram-Schmidt, higher ranks Householder QR, which completes P (R25)."""
    Q = np.random.default_rng(0).standard_normal((6, rho)).astype(np.float32)
    assert hook(np.zeros((5, 2, 3), np.float32), Q).verdict == verdict  # type: ignore[attr-defined]


@pytest.mark.parametrize("rho", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_paths_pass_on_ordinary_gradients(rho: int, dtype: type) -> None:
    """Rank 2 goes through Gram-Schmidt, rank 4 through torch.linalg.qr."""
    rng = np.random.default_rng(rho)
    for _ in range(20):
        g, Q = rng.standard_normal((8, 3, 4)).astype(dtype), rng.standard_normal((12, rho)).astype(dtype)
        assert hook(g, Q).verdict == "pass"  # type: ignore[attr-defined]


def test_epsilon_for_nan_gives_zero_for_ever() -> None:
    """With epsilon = 1e-8 a zero gradient leaves P = Q = 0, and the next gradient is compressed to nothing (R25)."""
    g, Q = torch.zeros(4, 3), torch.ones(3, 1)
    P, Q = torch_powersgd.compress(g, Q, torch_powersgd.group(), epsilon=1e-8)
    assert not P.any()
    P, Q = torch_powersgd.compress(torch.ones(4, 3), Q, torch_powersgd.group(), epsilon=1e-8)
    assert not P.any()
    assert not Q.any()


RANK = """
    import sys, torch, torch.distributed as dist
    from efcp_ref.targets.torch_powersgd import compress
    rank, store, out, rho = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    g = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    Q = torch.randn(8, rho, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    P, after = compress(g, Q, dist.group.WORLD)
    torch.save({"g": g, "Q": Q, "P": P, "after": after}, f"{out}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
"""


@pytest.mark.parametrize("rho", [2, 4])
def test_two_gloo_processes_agree_and_compress_the_mean_gradient(rho: int, tmp_path: Path) -> None:
    """Both ranks hold the same P and Q, and they are those of `power_compress` of the mean gradient."""
    code = [sys.executable, "-c", textwrap.dedent(RANK)]
    ranks = [subprocess.Popen([*code, str(r), str(tmp_path / "store"), str(tmp_path), str(rho)]) for r in range(2)]
    try:
        assert [rank.wait(timeout=90) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first["P"], second["P"])
    assert torch.equal(first["after"], second["after"])
    mean = ((first["g"] + second["g"]) / 2).numpy()
    case = Case("power_compress", "generic", "mean of two ranks", 0, 0, {"g": mean, "Q": first["Q"].numpy()})
    answer = Local({"power_compress": lambda g, Q: (first["P"].numpy(), first["after"].numpy())}, MGS)
    assert judge_case(answer, case)[0].verdict == "pass"


# ------------------------------------------------------------------ Adagrad


def adagrad(scale: float, dtype: type = np.float64, **readings: str) -> object:
    """Judge one step from nothing on gradients of one scale."""
    declared = Declared(readings=readings)
    g = np.array([3.0, -1.0, 0.5], np.float32) * np.float32(scale)
    zeros = {name: np.zeros(3) for name in ("theta", "xi", "G")}
    case = Case("adagrad_step", "generic", "by hand", 0, 0, {**zeros, "g": g.astype(float), "k": 3, "eta": 0.125})
    target = Local({"adagrad_step": torch_adagrad.adagrad_step}, declared)
    return judge_case(target, case.with_dtype(np.dtype(dtype).name))[0]


def test_adagrad_departs_at_scale_1e_12() -> None:
    """PyTorch's eps = 1e-10 outside the root: an option of R29, which the oracle names; never a pass."""
    verdict = adagrad(1e-12)
    assert verdict.verdict == "inconclusive"  # type: ignore[attr-defined]
    assert "R29" in verdict.first.reason  # type: ignore[attr-defined]
    moved, _, _ = torch_adagrad.adagrad_step(np.zeros(1), np.zeros(1), np.zeros(1), np.array([1e-12]), 1, 1.0)
    assert moved[0] == pytest.approx(-1 / 101)  # c / (|c| + eps); Algorithm 7 moves by 1


def test_adagrad_at_scale_one_passes_in_float32_and_departs_in_float64() -> None:
    """eps = 1e-10 is below float32's resolution of the step and far above float64's."""
    assert adagrad(1.0, np.float32).verdict == "pass"  # type: ignore[attr-defined]
    assert adagrad(1.0, np.float64).verdict == "inconclusive"  # type: ignore[attr-defined]
    assert adagrad(1.0, np.float64, R29="1e-10").verdict == "pass"  # type: ignore[attr-defined]


def test_adagrad_declines_below_k_equal_d() -> None:
    """Cases with k < d are counted as declined, not as errors."""
    report = check_target("efcp_ref.targets.torch_adagrad", cases=13, shrink_seconds=0)["adagrad_step"]
    assert report.verdict == "pass"
    assert report.errors == {}
    assert report.inconclusive["declined"] == 22
    assert {reason[:11] for reason in report.inconclusive} == {"declined", "reading R29"}


# ------------------------------------------------------------------ naive PyTorch


def test_naive_sparse_mfac_passes() -> None:
    """Float32 topk, scatter, dense products and an LU solve: nothing fails."""
    report = check_target("efcp_ref.targets.torch_naive", cases=20, shrink_seconds=0)
    said = {o.operation: o.verdict for o in report.operations if o.verdict != "skip"}
    directions = ["mfac_direction", "sparse_mfac_direction", "sparse_mfac"]
    assert said == dict.fromkeys(["top_k", "block_top_k", "error_feedback", "sp", "lcg", *directions], "pass")
