"""The adapters: u is minus what moved, named parameters only, a state where it is shown, and a rate that must be 1."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import efcp_ref
from efcp_ref.adapt import optax_transformation, torch_optimizer
from efcp_ref.oracle.judge import assert_conforms

torch = pytest.importorskip("torch")
EXAMPLES = Path(__file__).parents[1] / "examples"


def test_importing_the_module_imports_neither_pytorch_nor_jax():
    code = "import sys, efcp_ref.adapt; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "jax", "optax"} & set(loaded)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_u_is_the_gradient_of_plain_sgd_in_its_precision(dtype):
    it = torch_optimizer(lambda params: torch.optim.SGD(params, lr=1.0))(d=3, k=3)
    g = np.array([1.0, -0.1, 1e-30], dtype)
    g.flags.writeable = False
    for _ in range(3):
        u = it.step(g)
        assert u.dtype == dtype
        assert np.array_equal(u, g)


def test_u_is_that_of_the_reference_behind_a_shell():
    from efcp_ref.torch import SparseMFAC

    @torch_optimizer
    def sparse_mfac(params, **given):
        del given["d"]
        return SparseMFAC(params, lr=1.0, **given)

    given = {"d": 12, "m": 3, "lam": 0.5, "block_size": 4, "density": 0.25}
    mine, reference = sparse_mfac(**given), efcp_ref.sparse_mfac(**given)
    for g in np.random.default_rng(0).standard_normal((7, 12)):
        assert np.array_equal(mine.step(g), reference.step(g))


def test_shapes_become_one_tensor_each_in_order():
    seen = []

    @torch_optimizer
    def low_rank_mfac(params, shapes):
        seen.extend(tuple(p.shape) for p in params)
        return torch.optim.SGD([{"params": params[1:]}, {"params": params[:1]}], lr=1.0)

    it = low_rank_mfac(shapes=[(2, 3), (4,), (1, 2, 2)], m=2)
    g = np.arange(14.0)
    assert np.array_equal(it.step(g), g)
    assert seen == [(2, 3), (4,), (1, 2, 2)]


def test_a_tensor_is_taken_as_an_array_is():
    it = torch_optimizer(lambda params: torch.optim.SGD(params, lr=1.0))(d=2, k=2)
    assert np.array_equal(it.step(torch.tensor([1.0, 2.0])), np.float32([1, 2]))


@pytest.mark.parametrize(
    ("given", "rule"),
    [({"d": 2, "k": 2}, r"lr = 0\.5 in sgd, must be 1"), ({"d": 2, "gamma": 0.25}, r"lr = 0\.5 in sgd, must be gamma")],
)
def test_another_rate_is_refused(given, rule):
    @torch_optimizer
    def sgd(params):
        return torch.optim.SGD(params, lr=0.5)

    with pytest.raises(ValueError, match=rule):
        sgd(**given).step(np.ones(2))


def test_there_is_a_state_only_where_it_is_shown():
    def make(params):
        return torch.optim.SGD(params, lr=1.0)

    assert not hasattr(torch_optimizer(make)(d=2, k=2), "state")
    shown = torch_optimizer(make, state=lambda it, params: {"groups": len(it.param_groups), "xi": params[0]})(d=2, k=2)
    shown.step(np.ones(2))
    assert shown.state()["groups"] == 1
    assert shown.state()["xi"].tolist() == [-1.0, -1.0]


def test_the_adapted_function_keeps_its_name_and_text():
    @torch_optimizer(device="cpu")
    def topk_sgd(params):
        """Mine."""

    assert (topk_sgd.__name__, topk_sgd.__doc__) == ("topk_sgd", "Mine.")


def test_adagrad_is_an_option_of_R29_where_only_u_is_seen():
    """PyTorch adds 1e-10 to the root: undecided in float64, with the declaration that decides it; float32 passes."""

    @torch_optimizer
    def adagrad_ef(params, d, k):
        if k < d:
            raise NotImplementedError
        return torch.optim.Adagrad(params, lr=1.0)

    from efcp_ref.oracle.core import Declared
    from efcp_ref.oracle.judge import judge
    from efcp_ref.oracle.targets import Local

    silent, told = (
        judge(Local({"adagrad_ef": adagrad_ef}, declared), cases=15, shrink_seconds=0)["adagrad_ef"]
        for declared in (Declared(), Declared(readings={"R29": "1e-10"}))
    )
    assert silent.verdict == told.verdict == "pass"
    assert silent.inconclusive["reading R29: declare READINGS = {'R29': '1e-10'}"] >= 1
    assert silent.failed == told.failed == 0
    assert set(told.inconclusive) == {"declined"}
    assert told.passed > silent.passed


def test_a_wrong_eps_fails_where_only_u_is_seen():
    @torch_optimizer
    def adagrad_ef(params, d, k):
        if k < d:
            raise NotImplementedError
        return torch.optim.Adagrad(params, lr=1.0, eps=1e-3)

    with pytest.raises(AssertionError, match=r"adagrad_ef: fails at u"):
        assert_conforms(adagrad_ef, "adagrad_ef", cases=15, shrink_seconds=0)


def adapters(path):
    """Lines of every adapter in a file: its import, and the decorated function with decorator and docstring."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            yield node.name, 1 + node.end_lineno - node.decorator_list[0].lineno + 1


@pytest.mark.parametrize("name", ["my_optimizer", "my_wrong_optimizer", "shells"])
def test_an_adapter_takes_at_most_five_lines(name):
    found = dict(adapters(EXAMPLES / "torch" / f"{name}.py"))
    assert found
    assert max(found.values()) <= 5


# --- optax --------------------------------------------------------------------------------------------------------


def optax():
    pytest.importorskip("jax", reason="no JAX here: the optax adapter is not run")
    return pytest.importorskip("optax", reason="no optax here: the optax adapter is not run")


def test_u_is_minus_the_updates_of_optax():
    sgd = optax().sgd
    it = optax_transformation(lambda: sgd(1.0))(d=3, k=3)
    g = np.float32([1.0, -0.1, 2.0])
    assert np.array_equal(it.step(g), g)
    assert np.array_equal(it.step(-g), -g)


def test_optax_gets_one_tensor_per_shape_and_shows_its_state():
    trace = optax().trace

    @optax_transformation(state=lambda inside, params: {"e": inside.trace[1], "shapes": [p.shape for p in params]})
    def low_rank_mfac():
        return trace(decay=1.0)

    it = low_rank_mfac(shapes=[(2, 2), (3,)], m=2)
    g = np.arange(7, dtype=np.float32)
    assert np.array_equal(it.step(g), -g)
    assert np.array_equal(it.step(g), -2 * g)
    assert np.array_equal(it.state()["e"], 2 * g[4:])
    assert it.state()["shapes"] == [(2, 2), (3,)]
