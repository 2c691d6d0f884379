"""The answer does not depend on the number of threads; an exception in one of them arrives."""


import numpy as np
import pytest

from efcp_ref import fast
from efcp_ref.fast import threads


def test_any_number_of_threads_gives_the_same_bits(tiny):
    rng = np.random.default_rng(0)
    d, m = 500, 9
    kept = [fast.block_top_k(rng.standard_normal(d).astype(np.float32), 8, 0.3) for _ in range(m)]
    indices, values = np.stack([k.indices for k in kept]), np.stack([k.values for k in kept])
    x = rng.standard_normal(d).astype(np.float32)
    results = []
    for count in (1, 2, 5):
        with threads.limit(count):
            results.append(fast.sparse_mfac_direction(indices, values, d, 0.1, x, 8, 0.3))
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("count", [1, 3])
def test_an_exception_arrives(count):
    def part(numbers):
        if 7 in numbers:
            raise KeyboardInterrupt
        return len(numbers)

    with threads.limit(count), pytest.raises(KeyboardInterrupt):
        threads.over(part, range(10), 10**9)


def test_limits_nest_and_the_environment_counts(monkeypatch):
    monkeypatch.setenv("EFCP_THREADS", "7")
    assert threads.count() == 7
    with threads.limit(3):
        with threads.limit(1):
            assert threads.count() == 1
        assert threads.count() == 3
    assert threads.count() == 7


def test_results_keep_their_order():
    with threads.limit(4):
        parts = threads.over(list, range(1000), 10**9)
    assert [number for part in parts for number in part] == list(range(1000))
