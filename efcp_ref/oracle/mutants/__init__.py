"""Known mistakes: small wrong implementations, each with the paper line that it gets wrong.

They judge the oracle (every one must be caught), and they explain a failure: see `efcp_ref.oracle.diagnose`.
Each is also a target, e.g. ``efcp-ref check efcp_ref.oracle.mutants.mfac:lam_for_m_lam``.
"""

from __future__ import annotations

from efcp_ref.oracle.mutants import elementwise, feedback, ggt, low_rank, mfac, optimizers, selection, sparse
from efcp_ref.oracle.mutants.core import Mutant

FAMILIES = (selection, feedback, sparse, mfac, ggt, low_rank, elementwise, optimizers)
MUTANTS: tuple[Mutant, ...] = tuple(mistake for family in FAMILIES for mistake in family.MUTANTS)

__all__ = ["FAMILIES", "MUTANTS", "Mutant"]
