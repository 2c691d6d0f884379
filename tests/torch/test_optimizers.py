"""The shells: bit for bit the reference's run, groups, decoupled decay, state, and refusals that change nothing."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch

import efcp_ref
from efcp_ref.paper.optimizers import decoupled_update
from efcp_ref.torch import AdaGradEF, DenseMFAC, EFSignSGD, LowRankMFAC, SparseGGT, SparseMFAC

SHAPES = ((3, 4), (3,), (2, 3), ())
D = 12 + 3 + 6 + 1
Q0 = [np.random.default_rng(7).standard_normal((4, 2)), np.random.default_rng(8).standard_normal((3, 2))]
STORED = {"dtype": "bfloat16", "index": "uint16"}
MAKERS = {
    "DenseMFAC": (
        lambda p, **more: DenseMFAC(p, lr=0.1, m=3, lam=0.1, **more),
        lambda: efcp_ref.dense_mfac(d=D, m=3, lam=0.1),
    ),
    "SparseMFAC": (
        lambda p, **more: SparseMFAC(p, lr=0.1, m=3, lam=0.1, density=0.3, block_size=8, **more),
        lambda: efcp_ref.sparse_mfac(d=D, m=3, lam=0.1, block_size=8, density=0.3),
    ),
    "SparseMFAC bfloat16": (
        lambda p, **more: SparseMFAC(p, lr=0.1, m=3, lam=0.1, density=0.3, block_size=8, **STORED, **more),
        lambda: efcp_ref.sparse_mfac(d=D, m=3, lam=0.1, block_size=8, density=0.3, **STORED),
    ),
    "LowRankMFAC": (
        lambda p, **more: LowRankMFAC(p, lr=0.1, m=3, lam=0.1, rank=2, Q0=Q0, **more),
        lambda: efcp_ref.low_rank_mfac(shapes=[(3, 4), (3,), (2, 3), (1,)], m=3, lam=0.1, rank=2, Q0=Q0),
    ),
    "SparseGGT": (
        lambda p, **more: SparseGGT(p, lr=0.1, m=3, eps=0.1, k=5, **more),
        lambda: efcp_ref.sparse_ggt(d=D, m=3, eps=0.1, cutoff=1e-12, k=5),
    ),
    "AdaGradEF": (lambda p, **more: AdaGradEF(p, lr=0.1, k=5, **more), lambda: efcp_ref.adagrad_ef(d=D, k=5)),
    "EFSignSGD": (lambda p, **more: EFSignSGD(p, lr=0.1, **more), lambda: efcp_ref.ef_signsgd(d=D, gamma=0.1)),
}
each = pytest.mark.parametrize("name", MAKERS)


def parameters(dtype=torch.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.nn.Parameter(torch.tensor(rng.standard_normal(shape), dtype=dtype)) for shape in SHAPES]


def gradients(count, seed=1):
    return np.random.default_rng(seed).standard_normal((count, D))


def give(params, g):
    """Hand the flat gradient g to the parameters."""
    sizes = np.cumsum([p.numel() for p in params])[:-1]
    for p, part in zip(params, np.split(g, sizes), strict=True):
        p.grad = torch.tensor(part.reshape(p.shape), dtype=p.dtype)


def flat(params):
    return np.concatenate([p.detach().double().numpy().ravel() for p in params])


def run(optimizer, params, rows):
    for g in rows:
        give(params, g)
        optimizer.step()
    return flat(params)


@each
@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_R6_bit_for_bit_the_reference_with_decoupled_decay(name, decay):
    shell, reference = MAKERS[name]
    params, plain = parameters(), reference()
    theta = flat(params)
    optimizer = shell(params, weight_decay=decay)
    for g in gradients(8):
        u = plain.step(g)
        inside = name == "EFSignSGD"  # u is Delta: the rate is in it
        theta = (1 - decay * 0.1) * theta - u if inside else decoupled_update(theta, u, 0.1, decay)
        give(params, g)
        optimizer.step()
        assert np.array_equal(flat(params), theta)
    for key, value in plain.state().items():
        assert np.array_equal(optimizer.reference.state()[key], value)


def test_R6_the_decay_never_enters_the_window():
    first, second = parameters(), parameters()
    one, two = SparseMFAC(first, 0.1, 3, 0.1, 0.3), SparseMFAC(second, 0.1, 3, 0.1, 0.3, weight_decay=0.5)
    run(one, first, gradients(4))
    run(two, second, gradients(4))
    assert all(np.array_equal(value, two.reference.state()[key]) for key, value in one.reference.state().items())
    assert not np.array_equal(flat(first), flat(second))


@each
def test_groups_have_their_own_rate_and_decay(name):
    shell, reference = MAKERS[name]
    params = parameters()
    theta = flat(params)
    groups = [{"params": params[:2], "lr": 0.5, "weight_decay": 0.2}, {"params": params[2:]}]
    optimizer = shell(groups)
    rate = np.repeat([0.5, 0.1], [15, 7])
    decay = np.repeat([0.5 * 0.2, 0.0], [15, 7])
    if name == "EFSignSGD":
        plain = efcp_ref.ef_signsgd(d=D, gamma=1.0)
        for g in gradients(5):
            theta = (1 - decay) * theta - plain.step(rate * g)
    else:
        plain = reference()
        for g in gradients(5):
            theta = (1 - decay) * theta - rate * plain.step(g)
    assert np.array_equal(run(optimizer, params, gradients(5)), theta)


@each
def test_a_schedule_changes_the_rate(name):
    shell, _ = MAKERS[name]
    params = parameters()
    optimizer = shell(params)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.0 if t else 1.0)
    give(params, gradients(1)[0])
    optimizer.step()
    schedule.step()
    before = flat(params)
    give(params, np.zeros(D))
    optimizer.step()
    moved = not np.array_equal(flat(params), before)
    assert moved == (name == "EFSignSGD")  # R10: its error is paid in full, whatever the rate is now


@each
def test_state_dict_survives_a_file_to_the_bit(name):
    shell, _ = MAKERS[name]
    params = parameters()
    optimizer = shell(params)
    run(optimizer, params, gradients(4))
    file = io.BytesIO()
    torch.save({"theta": [p.data for p in params], "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    others = [torch.nn.Parameter(t) for t in saved["theta"]]
    other = shell(others)
    other.load_state_dict(saved["optimizer"])
    later = gradients(6, seed=2)
    assert np.array_equal(run(other, others, later), run(optimizer, params, later))


@each
def test_float32_parameters_keep_a_float64_state_through_a_file(name):
    """torch casts loaded state to the parameters' precision; the reference's state must not be."""
    shell, _ = MAKERS[name]
    params = parameters(torch.float32)
    optimizer = shell(params)
    run(optimizer, params, gradients(4))
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = shell(others)
    other.load_state_dict(optimizer.state_dict())
    for key, value in optimizer.reference.state().items():
        assert np.array_equal(other.reference.state()[key], value)
    later = gradients(3, seed=2)
    assert np.array_equal(run(other, others, later), run(optimizer, params, later))


@each
def test_float32_parameters_are_rounded_once_per_step(name):
    shell, reference = MAKERS[name]
    params = parameters(torch.float32)
    theta = flat(params)
    optimizer, plain = shell(params), reference()
    for g in gradients(5).astype(np.float32).astype(np.float64):
        u = plain.step(g)
        theta = (theta - (1.0 if name == "EFSignSGD" else 0.1) * u).astype(np.float32).astype(np.float64)
        give(params, g)
        optimizer.step()
    assert np.array_equal(flat(params), theta)


@each
@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_its_own_way(name, way):
    shell, _ = MAKERS[name]
    if name == "EFSignSGD":
        assert shell(parameters()).reference.state()["e"].shape == (D,)
    params = parameters()
    optimizer = shell(params)
    run(optimizer, params, gradients(3))
    other = way(optimizer)
    others = [p for group in other.param_groups for p in group["params"]]
    later = gradients(3, seed=2)
    assert np.array_equal(run(other, others, later), run(optimizer, params, later))


def test_a_missing_gradient_is_zero_and_none_at_all_does_nothing():
    params, same = parameters(), parameters()
    optimizer, other = (SparseMFAC(p, 0.1, 3, 0.1, 0.3, weight_decay=0.5) for p in (params, same))
    before = flat(params)
    optimizer.step()
    assert np.array_equal(flat(params), before)
    assert optimizer.reference.state()["t"] == 0
    g = gradients(1)[0]
    g[12:15] = 0
    give(params, g)
    params[1].grad = None
    give(same, g)
    optimizer.step()
    other.step()
    assert np.array_equal(flat(params), flat(same))


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned():
    theta = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    optimizer = DenseMFAC([theta], lr=1.0, m=1, lam=1.0)

    def closure():
        optimizer.zero_grad()
        loss = (theta**2 / 2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 12.5
    assert torch.allclose(theta, torch.tensor([3.0, 4.0], dtype=torch.float64) * (1 - 1 / 26))


def test_per_tensor_scales_every_parameter_by_itself():
    a = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    b = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = EFSignSGD([a, b], lr=1.0, per_tensor=True)
    a.grad, b.grad = torch.tensor([4.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    optimizer.step()
    assert (a.item(), b.tolist()) == (-4.0, [-1.0, -1.0])  # R34


def test_low_rank_draws_its_start_from_the_generator():
    made = [LowRankMFAC(parameters(), 0.1, 3, 0.1, 2, rng=np.random.default_rng(3)) for _ in range(2)]
    results = [run(o, [p for g in o.param_groups for p in g["params"]], gradients(3)) for o in made]
    assert np.array_equal(*results)
    with pytest.raises(TypeError, match="rng = None, must be a numpy.random.Generator where Q0 is not given"):
        LowRankMFAC(parameters(), 0.1, 3, 0.1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -0.1}, "lr = -0.1, must be at least 0"),
        ({"weight_decay": -1.0}, "weight_decay = -1.0, must be at least 0"),
        ({"lam": 0.0}, "lam = 0.0, must be greater than 0"),
        ({"m": 0}, "m = 0, must be at least 1"),
    ],
)
def test_bad_numbers_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SparseMFAC(parameters(), **{"lr": 0.1, "m": 3, "lam": 0.1, **arguments})


def test_a_group_may_not_have_its_own_window():
    with pytest.raises(ValueError, match="group has lam, may have its own lr, params, weight_decay only"):
        SparseMFAC([{"params": parameters(), "lam": 1.0}], 0.1, 3, 0.1)
    optimizer = SparseMFAC(parameters(), 0.1, 3, 0.1)
    with pytest.raises(ValueError, match="params cannot grow"):
        optimizer.add_param_group({"params": parameters()})


def test_parameters_must_be_real_numbers():
    with pytest.raises(TypeError, match="must hold real numbers"):
        DenseMFAC([torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))], 0.1, 3, 0.1)


@each
def test_a_gradient_that_is_not_finite_changes_nothing(name):
    shell, _ = MAKERS[name]
    params = parameters()
    optimizer = shell(params, weight_decay=0.5)
    run(optimizer, params, gradients(2))
    before, state = flat(params), optimizer.reference.state()
    g = gradients(1)[0]
    g[3] = np.nan
    give(params, g)
    with pytest.raises(ValueError, match="NaN or infinity"):
        optimizer.step()
    assert np.array_equal(flat(params), before)
    assert all(np.array_equal(value, optimizer.reference.state()[key]) for key, value in state.items())


def test_a_sparse_gradient_is_refused():
    theta = torch.nn.Parameter(torch.ones(3))
    optimizer = AdaGradEF([theta], 0.1, 1)
    theta.grad = torch.tensor([1.0, 0.0, 0.0]).to_sparse()
    with pytest.raises(TypeError, match="must be dense"):
        optimizer.step()


def test_another_state_is_refused_and_changes_nothing():
    params = parameters()
    optimizer = SparseMFAC(params, 0.1, 3, 0.1, 0.3)
    run(optimizer, params, gradients(2))
    state = optimizer.reference.state()
    with pytest.raises(KeyError, match="lacks 'reference'"):
        optimizer.load_state_dict(torch.optim.SGD(parameters(), 0.1).state_dict())
    with pytest.raises(ValueError, match="shape"):
        optimizer.load_state_dict(SparseMFAC(parameters(), 0.7, 4, 0.1, 0.3).state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert all(np.array_equal(value, optimizer.reference.state()[key]) for key, value in state.items())
