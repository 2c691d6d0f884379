"""The paper-size cases: valid by the contract, rebuilt from three numbers, and judged like any other."""

import numpy as np
import pytest

from efcp_ref.oracle.cases import generate, large
from efcp_ref.oracle.core import PASS
from efcp_ref.oracle.large import check_large
from efcp_ref.paper import _validate as check

NAMES = sorted(large.FAMILY)


def test_rows_obey_the_contract():
    for layout in ((200_001, 41_728, 0.01), (1_000, 7, 0.3)):
        drawn = large.rows(np.random.default_rng(0), 5, layout)
        indices, values, _, _ = check.check_rows(drawn["indices"], drawn["values"], *layout)
        np.testing.assert_array_equal(values.astype(np.float32), values)
        assert (np.diff(indices, axis=1) > 0).all()


def test_sizes_are_those_of_the_paper():
    """Sections 3.1 and G.2: B_d of an A100 and an H100, m = 1024, 1 %, ResNet-18; positions beyond 2^16 and 2^23."""
    case = generate("sp", 0, large.FIRST)
    assert case.arguments["g"].shape == (11_689_512,)
    assert case.arguments["block_size"] == 41_728
    assert case.arguments["indices"].max() > 2**23
    assert generate("lcg", 0, large.FIRST + 1).arguments["indices"].shape[0] == 1024
    assert generate("block_top_k", 0, large.FIRST + 1).arguments["block_size"] == 58_112


def test_rebuilt_from_three_numbers():
    index = large.FIRST + 1
    first, second, other = generate("sp", 3, index), generate("sp", 3, index), generate("sp", 4, index)
    np.testing.assert_array_equal(first.arguments["values"], second.arguments["values"])
    assert not np.array_equal(first.arguments["values"], other.arguments["values"])
    assert (first.family, first.id) == ("large", f"sp:3:{index}:float64")


def test_there_is_no_such_large_case():
    with pytest.raises(ValueError, match="index = 1000000, must be one of"):
        generate("wsm", 0, large.FIRST)


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_cases_never_draw_them(name):
    assert all(generate(name, 0, index).family != "large" for index in range(120, 124))


def test_the_twin_passes_and_a_mistake_that_only_size_shows_fails(tmp_path):
    """The mistake: positions held in 16 bits, which is right below 65,536."""
    report = check_large("efcp_ref.fast", ["power_compress", "wsm"], dtype="float32")
    assert {entry.operation: entry.verdict for entry in report.operations} == {"power_compress": PASS}
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import numpy as np\n"
        "def sp(indices, values, g):\n"
        "    return np.einsum('rk,rk->r', np.take(g, np.asarray(indices).astype(np.uint16)), values)\n"
    )
    report = check_large(str(wrong), ["sp"], dtype="float32")
    assert report["sp"].verdict == "fail"
    assert report["sp"].passed == 0
    assert report["sp"].failures[0].verdict.case.index >= large.FIRST
