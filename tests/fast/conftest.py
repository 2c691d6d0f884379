"""The twin at small sizes as it is at large ones: several slices, pieces, samples and threads."""

import pytest

from efcp_ref.fast import layout, selection, sums, threads


@pytest.fixture
def tiny(monkeypatch):
    """Slices of 16 coordinates, strips of 2 entries, pieces of 8, Top-k by sample from 8 entries on, two threads."""
    monkeypatch.setattr(layout, "SPAN", 16)
    monkeypatch.setattr(layout, "REACH", 4)
    monkeypatch.setattr(layout, "SHORTEST", 2)
    monkeypatch.setattr(sums, "PIECE", 8)
    monkeypatch.setattr(selection, "SAMPLED", 8)
    monkeypatch.setattr(selection, "STRIDE", 2)
    monkeypatch.setattr(threads, "WORTH", 1)
    with threads.limit(2):
        yield
