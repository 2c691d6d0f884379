"""The parsers under a reduced number of hostile inputs; ``benchmarks/fuzz.py`` runs more than 10^5 and records them."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
INPUTS = 4000


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.addaudithook(module._hook)
    return module


PARSERS = (
    "JSON", "npy", "typed arrays", "results", "text", "frames", "traces", "paths", "arguments", "bundles", "reports",
    "chunks", "campaigns", "JUnit", "Dask addresses",
)  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_nothing_but_the_documented_error_leaves_a_parser(fuzz, name):
    assert set(PARSERS) == set(fuzz.parsers())
    seen = Counter()
    peak = fuzz.run(name, dict(fuzz.shares(INPUTS))[name], seen)
    assert seen[name] >= min(40, dict(fuzz.shares(INPUTS))[name])
    assert peak < fuzz.MEMORY


def test_the_watch_notices_a_file_outside(fuzz, tmp_path):
    """The hook that the figures rest on does see an open."""
    outside = tmp_path / "secret.txt"
    outside.write_text("secret")
    fuzz.WATCHED = True
    try:
        outside.read_text()
    finally:
        fuzz.WATCHED = False
    found, fuzz.OPENED[:] = list(fuzz.OPENED), []
    assert str(outside) in found


def test_the_recorded_number_of_inputs_is_above_100_000(fuzz):
    import json

    recorded = json.loads(fuzz.RESULTS.read_text())["fuzz"]
    assert recorded["inputs"] == sum(recorded["inputs per parser"].values()) >= 100_000
    assert set(recorded["inputs per parser"]) == set(PARSERS)
    assert min(recorded["inputs per parser"].values()) >= 500
    assert recorded["crashes"] == recorded["files opened outside"] == 0
