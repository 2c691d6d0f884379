"""The models against differences, complex steps and their own training."""

import numpy as np
import pytest

from efcp_ref.data import MLP, SOFTMAX, Network, digits, recorded_gradients, split

SMALL = Network((64, 7, 5, 10))
MODELS = [SOFTMAX, MLP, SMALL]


def problem(model, n=20, seed=0):
    X, y = digits()
    return model.start(np.random.default_rng(seed)), X[:n], y[:n]


@pytest.mark.parametrize(("model", "d"), [(SOFTMAX, 650), (MLP, 19_210), (SMALL, 64 * 7 + 7 + 35 + 5 + 50 + 10)])
def test_dimension(model, d):
    assert model.d == d == sum(int(np.prod(shape)) for shape in model.shapes)
    assert model.start(np.random.default_rng(0)).shape == (d,)


@pytest.mark.parametrize("model", MODELS)
def test_gradient_is_the_derivative_of_the_loss(model):
    theta, X, y = problem(model)
    g = model.gradient(theta, X, y)
    rng = np.random.default_rng(1)
    for v in rng.standard_normal((4, model.d)):
        slope = model.loss(theta + 1e-20j * v, X, y).imag / 1e-20
        assert slope == pytest.approx(g @ v, rel=1e-12, abs=1e-12)
    for i in rng.choice(model.d, 20, replace=False):  # and coordinate by coordinate
        step = np.zeros(model.d, complex)
        step[i] = 1e-20j
        assert model.loss(theta + step, X, y).imag / 1e-20 == pytest.approx(g[i], rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("model", MODELS)
def test_complex_step_of_the_gradient_is_the_hessian(model):
    theta, X, y = problem(model)
    v, w = np.random.default_rng(2).standard_normal((2, model.d))

    def hessian_times(v):
        return model.gradient(theta + 1e-20j * v, X, y).imag / 1e-20

    assert w @ hessian_times(v) == pytest.approx(v @ hessian_times(w), rel=1e-10)  # symmetric
    size = 1e-6
    central = (model.gradient(theta + size * v, X, y) - model.gradient(theta - size * v, X, y)) / (2 * size)
    assert np.linalg.norm(hessian_times(v) - central) <= 1e-6 * np.linalg.norm(central)


def test_softmax_regression_by_hand():
    theta, X, y = problem(SOFTMAX, 1)
    scores = X[0] @ theta[:640].reshape(64, 10) + theta[640:]
    share = np.exp(scores) / np.exp(scores).sum()
    assert SOFTMAX.loss(theta, X, y) == pytest.approx(-np.log(share[y[0]]), rel=1e-12)
    wrong = share - np.eye(10)[y[0]]
    assert np.allclose(SOFTMAX.gradient(theta, X, y), [*np.outer(X[0], wrong).ravel(), *wrong], rtol=1e-12)


def test_large_scores_do_not_overflow():
    theta, X, y = problem(SOFTMAX)
    assert np.isfinite(SOFTMAX.loss(1e4 * theta, X, y))
    assert np.isfinite(SOFTMAX.gradient(1e4 * theta, X, y)).all()


@pytest.mark.parametrize("model", [SOFTMAX, MLP])
def test_training_learns_the_digits(model):
    X, y = digits()
    theta = model.start(np.random.default_rng(0))
    for _ in range(60):
        theta = theta - 0.5 * model.gradient(theta, X[split().train], y[split().train])
    assert model.accuracy(theta, X[split().test], y[split().test]) > 0.9


@pytest.mark.parametrize("model", [SOFTMAX, MLP])
def test_recorded_gradients(model):
    g = recorded_gradients(model, 6, seed=3)
    assert g.shape == (6, model.d)
    assert np.array_equal(g, g.astype(np.float32))
    assert not g.flags.writeable
    assert np.linalg.norm(g, axis=1).min() > 0
    assert (g == 0).all(axis=0).any()  # pixels that are never lit, as in real data
    fresh = recorded_gradients.__wrapped__
    assert np.array_equal(g, fresh(model, 6, seed=3))
    assert np.array_equal(g[:4], fresh(model, 4, seed=3))
    assert not np.array_equal(g, fresh(model, 6, seed=4))


def test_first_recorded_gradient_is_a_gradient_of_the_model():
    rng = np.random.default_rng(5)
    theta = SOFTMAX.start(rng)
    chosen = rng.choice(split().train, 16, replace=False)
    X, y = digits()
    g = SOFTMAX.gradient(theta, X[chosen], y[chosen])
    assert np.array_equal(recorded_gradients(SOFTMAX, 1, batch=16, seed=5)[0], g.astype(np.float32))


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch": 0}, {"batch": 1079}, {"seed": -1}, {"lr": 0.0}, {"steps": 2.5}, {"lr": "x"}]
)
def test_bad_input_names_the_argument(wrong):
    (name,) = wrong
    with pytest.raises((TypeError, ValueError), match=name):
        recorded_gradients(SOFTMAX, **{"steps": 2, **wrong})


def test_wrong_theta():
    with pytest.raises(ValueError, match="theta"):
        SOFTMAX.layers(np.zeros(649))
