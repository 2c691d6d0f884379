"""`torch.distributed` with gloo, 2 and 4 real processes: both residuals, PowerSGD, and PyTorch's own hook."""

import pytest

from efcp_ref.oracle.workers import check_workers

torch = pytest.importorskip("torch")
HERE = "efcp_ref.targets.torch_workers"


def gloo():
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this PyTorch has no gloo: the workers are not run")


@pytest.mark.parametrize(("target", "size", "residual"), [(HERE, 2, "local"), (f"{HERE}:averaged", 4, "averaged")])
def test_the_residual_of_each_target_is_named(target, size, residual):
    gloo()
    report = check_workers(target, size, cases=7, timeout=60, start_timeout=110)
    assert {o.operation: o.verdict for o in report.operations} == {"power_compress": "pass", "topk_sgd": "pass"}
    assert report["topk_sgd"].passed == report["power_compress"].passed == 14
    (note,) = report.notes
    assert note.startswith(f"topk_sgd with {size} workers: {residual} residual in ")


def test_the_hook_of_pytorch_passes_and_gives_NaN_where_gradients_cancel():
    """The finding of `efcp_ref.targets.torch_powersgd`, in two processes: rank 1 of a zero mean is 0 / 0 (R25)."""
    gloo()
    report = check_workers("efcp_ref.targets.torch_powersgd", 2, cases=3, timeout=60, start_timeout=110)
    assert report["power_compress"].verdict == "pass"
    cancelled = check_workers("efcp_ref.targets.torch_powersgd", 2, only=17, timeout=60, start_timeout=110)
    failure = cancelled["power_compress"].failures[0].verdict
    assert failure.case.label == "two gradients cancel"
    assert "P holds NaN" in failure.first.reason
