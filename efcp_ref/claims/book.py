"""All claims, in the order of the page."""

from __future__ import annotations

from efcp_ref.claims import closed_forms, synthetic, trained  # noqa: F401
from efcp_ref.claims.core import CLAIMS, Claim

ORDER = (
    "sparse-recovers-dense", "feedback-makes-it-work", "diverges-without", "metric-decays", "density-threshold",
    "flatter-minima", "better-than-sgd", "competitive", "sparse-ggt", "rank-ablation", "rank-against-density",
    "direction-not-sparse", "window-size", "large-damping-is-sgd", "small-damping", "mfac-batch-size", "memory",
    "table-12", "against-itself",
    "sign-counterexample", "span-and-max-margin", "batch-size", "majority-vote", "lemma-3", "theorem-2", "lemma-k1",
    "scaled-variant", "diagonal-rate",
)  # fmt: skip


def claims() -> list[Claim]:
    """Return all claims.

    >>> len(claims()), claims()[0].id
    (28, 'sparse-recovers-dense')
    """
    assert set(ORDER) == set(CLAIMS)
    return [CLAIMS[id] for id in ORDER]
