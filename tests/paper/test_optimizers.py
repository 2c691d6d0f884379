"""The optimizers: each step against an independent derivation, state round trips, R6, options."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import efcp_ref
from efcp_ref.paper.optimizers import (
    adagrad_ef,
    decoupled_update,
    dense_ggt,
    dense_mfac,
    ef_signsgd,
    low_rank_mfac,
    sparse_ggt,
    sparse_mfac,
    topk_sgd,
)
from efcp_ref.paper.top_k import block_top_k

D = 6
Q0 = [np.linalg.qr(np.arange(1.0, 10.0).reshape(3, 3) ** 0.5)[0][:, :1]]
MAKERS = {
    "topk_sgd": partial(topk_sgd, d=D, k=2),
    "dense_mfac": partial(dense_mfac, d=D, m=3, lam=0.1),
    "sparse_mfac": partial(sparse_mfac, d=D, m=3, lam=0.1, block_size=4, density=0.5),
    "sparse_mfac uint16 bfloat16": partial(
        sparse_mfac, d=D, m=3, lam=0.1, block_size=4, density=0.5, dtype="bfloat16", index="uint16"
    ),
    "low_rank_mfac": partial(low_rank_mfac, shapes=((1, 3), (3,)), m=3, lam=0.1, rank=1, Q0=Q0),
    "dense_ggt": partial(dense_ggt, d=D, m=3, eps=0.1, cutoff=1e-10),
    "sparse_ggt": partial(sparse_ggt, d=D, m=3, eps=0.1, cutoff=1e-10, k=2),
    "adagrad_ef": partial(adagrad_ef, d=D, k=2),
    "ef_signsgd": partial(ef_signsgd, d=D, gamma=0.1),
}


def gradients(T, seed=0, d=D):
    return np.random.default_rng(seed).standard_normal((T, d))


def compressed(gradients, block_size, density):
    """The c_t of a run, by a loop of its own."""
    xi, out = np.zeros(gradients.shape[1]), []
    for g in gradients:
        a = xi + g
        c = np.zeros_like(a)
        kept = block_top_k(a, block_size, density).indices
        c[kept] = a[kept]
        xi = a - c
        out.append(c)
    return np.array(out), xi


def test_dense_mfac_against_a_dense_solve_after_wrap_around():
    optimizer, G = dense_mfac(d=D, m=3, lam=0.1), gradients(8)
    for t, g in enumerate(G):
        u = optimizer.step(g)
        rows = G[max(0, t - 2) : t + 1]
        F = 0.1 * np.eye(D) + rows.T @ rows / 3
        assert np.allclose(u, np.linalg.solve(F, g), rtol=1e-11, atol=1e-12)


def test_sparse_mfac_against_a_dense_solve_of_what_was_kept():
    optimizer, G = sparse_mfac(d=D, m=3, lam=0.1, block_size=4, density=0.5), gradients(8)
    C, xi = compressed(G, 4, 0.5)
    for t, g in enumerate(G):
        u = optimizer.step(g)
        rows = C[max(0, t - 2) : t + 1]
        F = 0.1 * np.eye(D) + rows.T @ rows / 3
        assert np.allclose(u, np.linalg.solve(F, C[t]), rtol=1e-11, atol=1e-12)
    state = optimizer.state()
    assert np.allclose(state["xi"], xi, atol=1e-14)
    assert (state["t"], state["row"]) == (8, 2)
    dense = np.zeros((3, D))
    np.put_along_axis(dense, state["indices"].astype(int), state["values"], axis=1)
    assert np.allclose(state["S"], dense @ dense.T, atol=1e-13)


@pytest.mark.parametrize("index", ["absolute", "uint16", "int32"])
def test_index_storage_changes_nothing(index):
    a = sparse_mfac(d=D, m=3, lam=0.1, block_size=4, density=0.5)
    b = sparse_mfac(d=D, m=3, lam=0.1, block_size=4, density=0.5, index=index)
    for g in gradients(7):
        assert np.array_equal(a.step(g), b.step(g))


def test_R14_bfloat16_window_loses_nothing_but_waits():
    optimizer, G = sparse_mfac(d=D, m=3, lam=0.1, density=0.5, dtype="bfloat16"), gradients(5)
    sent = np.zeros(D)
    for g in G:
        optimizer.step(g)
        state = optimizer.state()
        row = (state["row"] - 1) % 3
        sent[state["indices"][row]] += state["values"][row].astype(float)
    assert np.allclose(sent + state["xi"], G.sum(axis=0), atol=1e-14)


def test_low_rank_mfac_at_full_rank_is_dense_mfac():
    shapes, rng = ((2, 2), (2,)), np.random.default_rng(0)
    low = low_rank_mfac(shapes=shapes, m=3, lam=0.1, rank=2, Q0=[np.eye(2)])
    dense = dense_mfac(d=6, m=3, lam=0.1)
    for _ in range(7):
        g = rng.standard_normal(6)
        assert np.allclose(low.step(g), dense.step(g), rtol=1e-10, atol=1e-11)


def test_sparse_ggt_at_k_d_is_dense_ggt():
    sparse, dense = sparse_ggt(d=D, m=3, eps=0.1, cutoff=1e-10, k=D), dense_ggt(d=D, m=3, eps=0.1, cutoff=1e-10)
    for g in gradients(7):
        assert np.allclose(sparse.step(g), dense.step(g), rtol=1e-10, atol=1e-11)


def test_adagrad_ef_at_k_d_is_adagrad():
    optimizer, squares = adagrad_ef(d=D, k=D), np.zeros(D)
    for g in gradients(5):
        squares = squares + g**2
        assert np.allclose(optimizer.step(g), g / np.sqrt(squares), rtol=1e-15)


def test_ef_signsgd_is_conservative():
    optimizer, G = ef_signsgd(d=D, gamma=0.5), gradients(9)
    moved = sum(optimizer.step(g) for g in G)
    assert np.allclose(moved + optimizer.state()["e"], 0.5 * G.sum(axis=0), atol=1e-14)


def test_topk_sgd_is_conservative_bit_for_bit_on_dyadic_input():
    optimizer, G = topk_sgd(d=D, k=2), np.round(gradients(9) * 8) / 8
    moved = sum(optimizer.step(g) for g in G)
    assert np.array_equal(moved + optimizer.state()["xi"], G.sum(axis=0))


def test_R4_normalise_by_what_is_stored():
    g = np.array([1.0])
    assert dense_mfac(d=1, m=4, lam=0.1).step(g).round(3) == 2.857
    assert dense_mfac(d=1, m=4, lam=0.1, normalise="stored").step(g).round(3) == 0.909
    assert sparse_mfac(d=1, m=4, lam=0.1, density=1, normalise="stored").step(g).round(3) == 0.909


def test_R6_decay_multiplies_theta_and_never_enters_the_window():
    optimizer, theta = dense_mfac(d=2, m=2, lam=0.5), np.array([1.0, -2.0])
    g = np.array([0.5, 0.25])
    u = optimizer.step(g)
    assert np.array_equal(decoupled_update(theta, u, 0.1, 0.01), (1 - 0.01 * 0.1) * theta - 0.1 * u)
    assert np.array_equal(optimizer.state()["G"][0], g)
    inside = dense_mfac(d=2, m=2, lam=0.5).step(g + 0.01 * theta)  # the decay inside the gradient is another method
    assert not np.allclose(decoupled_update(theta, inside, 0.1), decoupled_update(theta, u, 0.1, 0.01), rtol=1e-6)


def test_large_damping_is_sgd_at_rate_eta_over_lam():
    g = gradients(1)[0]
    assert np.allclose(dense_mfac(d=D, m=3, lam=1e8).step(g), g / 1e8, rtol=1e-7)


@pytest.mark.parametrize("name", MAKERS)
@given(split=st.integers(0, 6), seed=st.integers(0, 50))
@settings(max_examples=8, deadline=None)
def test_a_loaded_state_continues_bit_for_bit(name, split, seed):
    first, G = MAKERS[name](), gradients(8, seed)
    for g in G[:split]:
        first.step(g)
    second = MAKERS[name]()
    second.load(first.state())
    for g in G[split:]:
        a, b = first.step(g), second.step(g)
        exact = name == "sparse_ggt"  # its scalar products are computed anew, in another order
        assert np.allclose(a, b, rtol=1e-12, atol=1e-13) if exact else np.array_equal(a, b)


@pytest.mark.parametrize("name", MAKERS)
def test_state_is_a_copy_with_the_names_of_the_contract(name):
    from efcp_ref.contract import OPTIMIZERS

    optimizer = MAKERS[name]()
    optimizer.step(gradients(1)[0])
    state = optimizer.state()
    expected = OPTIMIZERS[name.split()[0]].state
    plain = {key for key in expected if not key.endswith("..")}
    assert plain <= set(state)
    for value in state.values():
        if isinstance(value, np.ndarray):
            value[...] = 0
    again = optimizer.state()
    assert any(np.any(v != 0) for v in again.values() if isinstance(v, np.ndarray))


@pytest.mark.parametrize("name", MAKERS)
def test_bad_gradients_leave_the_state_alone(name):
    optimizer = MAKERS[name]()
    optimizer.step(gradients(1)[0])
    before = optimizer.state()
    for bad in (np.zeros(D + 1), np.full(D, np.nan), np.zeros((2, 3)), np.array(["x"] * D), np.zeros(0)):
        with pytest.raises((ValueError, TypeError), match="g "):
            optimizer.step(bad)
    for key, value in optimizer.state().items():
        assert np.array_equal(value, before[key])


@pytest.mark.parametrize("name", MAKERS)
def test_bad_states_leave_the_state_alone(name):
    optimizer = MAKERS[name]()
    optimizer.step(gradients(1)[0])
    before = optimizer.state()
    with pytest.raises(KeyError, match="state lacks"):
        optimizer.load({})
    for key, value in before.items():
        bad = value[..., None] if isinstance(value, np.ndarray) else -1
        with pytest.raises((ValueError, TypeError), match=key):
            optimizer.load({**before, key: bad})
    if "indices" in before:
        with pytest.raises(ValueError, match="indices"):
            optimizer.load({**before, "indices": before["indices"] * 0.5})
        with pytest.raises(ValueError, match="indices"):
            optimizer.load({**before, "indices": before["indices"] * 0 + 99})
    if "row" in before:
        with pytest.raises(ValueError, match="must be in 0..2"):
            optimizer.load({**before, "row": 3})
    for key, value in optimizer.state().items():
        assert np.array_equal(value, before[key])


@pytest.mark.parametrize("name", MAKERS)
def test_u_has_the_precision_of_g(name):
    g = gradients(1)[0]
    assert MAKERS[name]().step(g.astype(np.float32)).dtype == np.float32
    assert MAKERS[name]().step(g).dtype == np.float64


@pytest.mark.parametrize("name", MAKERS)
def test_zero_gradients_give_zero(name):
    optimizer = MAKERS[name]()
    for _ in range(4):
        assert not optimizer.step(np.zeros(D)).any()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: topk_sgd(d=3, k=4), ValueError, "k = 4"),
        (lambda: topk_sgd(d=0, k=0), ValueError, "d = 0"),
        (lambda: dense_mfac(d=2, m=0, lam=1.0), ValueError, "m = 0"),
        (lambda: dense_mfac(d=2, m=2, lam=0.0), ValueError, "lam = 0.0"),
        (lambda: dense_mfac(d=2, m=2, lam=1.0, normalise="rows"), ValueError, "normalise = 'rows'"),
        (lambda: sparse_mfac(d=2, m=2, lam=np.nan), ValueError, "lam = nan"),
        (lambda: sparse_mfac(d=2, m=2, lam=1.0, density=2), ValueError, "density = 2"),
        (lambda: dense_ggt(d=2, m=2, eps=-1, cutoff=0), ValueError, "eps = -1.0"),
        (lambda: sparse_ggt(d=2, m=2, eps=1, cutoff=-1, k=1), ValueError, "cutoff = -1.0"),
        (lambda: sparse_ggt(d=2, m=2, eps=1, cutoff=0, k=3), ValueError, "k = 3"),
        (lambda: adagrad_ef(d=2, k=1, eps=-1), ValueError, "eps = -1.0"),
        (lambda: adagrad_ef(d=2, k="1"), TypeError, "k = '1'"),
        (lambda: ef_signsgd(d=2, gamma=0), ValueError, "gamma = 0.0"),
        (lambda: ef_signsgd(d=2, gamma=1, per_tensor=(1,)), ValueError, "per_tensor"),
        (lambda: low_rank_mfac(shapes=((2, 2),), m=2, lam=1, rank=1, Q0=[]), ValueError, "Q0"),
        (lambda: low_rank_mfac(shapes=((2, 2),), m=2, lam=1, rank=0, Q0=[np.eye(2)]), ValueError, "rank = 0"),
    ],
)
def test_bad_parameters_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_R14_what_top_k_sgd_returns_is_what_it_sent(dtype):
    optimizer, G = topk_sgd(d=D, k=2), gradients(9).astype(dtype)
    moved = sum(optimizer.step(g).astype(np.float64) for g in G)
    assert np.allclose(moved + optimizer.state()["xi"], G.astype(np.float64).sum(axis=0), atol=1e-14)


MFAC, GGT = {"m": 1, "lam": 1.0}, {"m": 1, "eps": 1.0, "cutoff": 0.0}
LAYERS = {"shapes": [(2, 2)], "lam": 1.0, "rank": 1, "Q0": [np.ones((2, 1))]}
SIZED = {
    "topk_sgd": {"k": 1}, "dense_mfac": MFAC, "sparse_mfac": MFAC, "dense_ggt": GGT, "sparse_ggt": {**GGT, "k": 1},
    "adagrad_ef": {"k": 1}, "ef_signsgd": {"gamma": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("name", SIZED)
def test_a_dimension_beyond_the_contract_is_refused_at_once(name):
    with pytest.raises(ValueError, match="d = 1000000000.*, must be at most 2147483647"):
        getattr(efcp_ref, name)(d=10**30, **SIZED[name])


@pytest.mark.parametrize("name", ["dense_mfac", "sparse_mfac", "dense_ggt", "sparse_ggt"])
def test_a_window_beyond_what_can_be_counted_is_refused_at_once(name):
    with pytest.raises(ValueError, match="m = 1000000000.*, must be at most 268435456"):
        getattr(efcp_ref, name)(d=2, **{**SIZED[name], "m": 10**30})


def test_layers_beyond_what_can_be_counted_are_refused_at_once():
    with pytest.raises(ValueError, match="m = 1000000000.*, must be at most 268435456"):
        efcp_ref.low_rank_mfac(**LAYERS, m=10**30)
    with pytest.raises(ValueError, match="must hold at most 2147483647 entries in all"):
        efcp_ref.low_rank_mfac(**{**LAYERS, "shapes": [(2, 10**30)]}, m=1)


def test_lcg_of_a_dimension_beyond_the_contract_is_refused_at_once():
    with pytest.raises(ValueError, match="d = 1000000000.*, must be at most 2147483647"):
        efcp_ref.lcg([[0]], [[1.0]], [1.0], 10**30)


def test_a_masked_state_is_refused():
    optimizer = efcp_ref.sparse_ggt(d=2, k=1, **GGT)
    state = optimizer.state()
    with pytest.raises(ValueError, match="indices = .* is a masked array with hidden entries"):
        optimizer.load({**state, "indices": np.ma.array(state["indices"], mask=True)})
