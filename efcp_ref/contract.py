"""The contract: what the operations of the paper are called, what they take, what they return.

The reference, the fast twin, the kernels and a user's own code are all *targets*: modules whose
functions carry these names. Nothing here computes; the oracle, the command line and the docs read it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Argument:
    """One argument or result: its name, its shape in the paper's letters, and what it is."""

    name: str
    shape: str  # "(m, d)"; "" for a scalar
    meaning: str
    kind: str = "float"  # float | int | index | density | list


@dataclass(frozen=True)
class Operation:
    """One operation of the paper: arguments in calling order, results in returning order."""

    name: str
    arguments: tuple[Argument, ...]
    results: tuple[Argument, ...]
    stages: tuple[Argument, ...]  # optional further results, which a target may leave out
    source: str  # where the paper prints it
    line: str  # the line that a wrong result is blamed on when no stage says more
    criterion: str  # the inequality that judges it

    @property
    def layout(self) -> bool:
        """Whether the last two arguments are ``block_size, density``, which a target may leave out."""
        return tuple(a.name for a in self.arguments[-2:]) == ("block_size", "density")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the results, then of the optional stages."""
        return tuple(r.name for r in self.results + self.stages)


@dataclass(frozen=True)
class Optimizer:
    """One optimizer: constructed by keyword, then ``step(g) -> u``, optionally ``state()`` and ``load(state)``."""

    name: str
    parameters: tuple[Argument, ...]
    state: tuple[str, ...]  # keys of ``state()``
    source: str
    line: str
    criterion: str


_A = Argument
_D = _A("d", "", "dimension", "int")
_K = _A("k", "", "kept entries", "int")
_M = _A("m", "", "window size", "int")
_LAM = _A("lam", "", "damping lambda > 0")
_EPS = _A("eps", "", "GGT damping epsilon > 0")
_CUTOFF = _A("cutoff", "", "sigma_i^2 <= cutoff * sigma_1^2 is dropped (R24)")
_BLOCK = _A("block_size", "", "B_d, entries per Top-k block", "int")
_DENSITY = _A("density", "", "kept fraction of each block", "density")
_LAYOUT = (_BLOCK, _DENSITY)
_INDICES = _A("indices", "(m, k)", "absolute positions, distinct within a row, in block order", "index")
_VALUES = _A("values", "(m, k)", "values at these positions")
_GW = _A("G", "(m, d)", "window, one gradient per row; empty rows are zero")
_X = _A("x", "(d,)", "vector to precondition")
_g = _A("g", "(d,)", "gradient")
_KEPT = (_A("indices", "(k,)", "positions kept", "index"), _A("values", "(k,)", "values kept"))
_MFAC_STAGES = (
    _A("S", "(m, m)", "undamped scalar products G G^T"),
    _A("h", "(m,)", "G x"),
    _A("c", "(m,)", "coefficients of eq. (2)"),
)
_GGT_STAGES = (
    _A("gram", "(m, m)", "G G^T of the window (the paper's G^T G of appendix H)"),
    _A("eigenvalues", "(m,)", "of gram, any order"),
    _A("eigenvectors", "(m, m)", "of gram, one per column"),
)
_U = (_A("u", "(d,)", "direction"),)

_OPERATIONS = (
    Operation("top_k", (_A("a", "(d,)", "accumulator"), _K), _KEPT, (), "section 3.1", "K:1",
              "k distinct positions; smallest kept |a_i| >= largest dropped one; values = storage rounding of a[indices]"),
    Operation("block_top_k", (_A("a", "(d,)", "accumulator"), *_LAYOUT), _KEPT, (), "sections 3.1 and G.2, R11-R13", "K:3",
              "in every block: ceil(density * size) distinct positions, smallest kept >= largest dropped"),
    Operation("error_feedback", (_A("xi", "(d,)", "error"), _g, *_LAYOUT), (*_KEPT, _A("xi", "(d,)", "error of the next step")), (),
              "Algorithm 1, lines 5-7", "1:5", "a^ = dense(values) + xi':  |a^ - (xi + g)| <= u |a^|, then Top-k of a^"),
    Operation("sp", (_INDICES, _VALUES, _g, *_LAYOUT), (_A("omega", "(m,)", "scalar products"),), (), "Algorithm 2", "2:11",
              "|omega_r - v_r . g| <= k u sum |v g| + k 2^-149"),
    Operation("lcg", (_INDICES, _VALUES, _A("c", "(m,)", "coefficients"), _D, *_LAYOUT), (_A("omega", "(d,)", "linear combination"),), (),
              "Algorithm 3", "3:20", "|omega_i - sum c v| <= n_i u sum |c v| + n_i 2^-149; exactly 0 where n_i = 0"),
    Operation("wsm", (_GW, _LAM, _X), (_A("y", "(d,)", "F^-1 x"),), (), "section 2.2", "W:2",
              "forward bound of eq. (2) with the exact S, h and c"),
    Operation("mfac_direction", (_GW, _LAM, _X), _U, _MFAC_STAGES, "section 2.2, eq. (2)", "W:4",
              "S, h: dot criterion; |h - M w| <= (3m+10) u |L||L^T||w| + ...; |u - (x/lam - c G)| <= (m+4) u (|x|/lam + |G|^T |c|)"),
    Operation("sparse_mfac_direction", (_INDICES, _VALUES, _D, _LAM, _X, *_LAYOUT), _U, _MFAC_STAGES, "section 3.1, eq. (2)", "W:4",
              "as mfac_direction, on the densified window"),
    Operation("ggt_direction", (_GW, _X, _EPS, _CUTOFF), _U, _GGT_STAGES, "appendix H, dense", "4:11",
              "||A V - V L|| <= 30 n 2u ||A||, ||V^T V - I|| <= 30 n 2u; u forward, given V and L"),
    Operation("sparse_ggt_direction", (_INDICES, _VALUES, _D, _X, _EPS, _CUTOFF, *_LAYOUT), _U, _GGT_STAGES, "Algorithm 4", "4:11",
              "as ggt_direction, on the densified window"),
    Operation("power_compress", (_A("g", "(p1, ..., ps)", "gradient tensor"), _A("Q", "(p2*...*ps, rho)", "right factor of the step before")),
              (_A("P", "(p1, rho)", "orthonormal left factor"), _A("Q", "(p2*...*ps, rho)", "right factor")), (), "Algorithm 5", "5:4",
              "||P^T P - I||_F <= 8 p rho u; ||(I - P P^T) M Q|| small; |Q' - M^T P| <= p u |M|^T |P|"),
    Operation("low_rank_inner_product", (_A("P1", "(p1, rho1)", "left factor"), _A("Q1", "(p2, rho1)", "right factor"),
              _A("P2", "(p1, rho2)", "left factor"), _A("Q2", "(p2, rho2)", "right factor")),
              (_A("product", "", "Tr((P1 Q1^T)^T (P2 Q2^T))"),), (), "appendix I", "6:8",
              "(p1 p2 + rho1 + rho2 + rho1 rho2) u sum((|P1||Q1|^T) o (|P2||Q2|^T))"),
    Operation("adagrad_step", (_A("theta", "(d,)", "parameters"), _A("xi", "(d,)", "error"), _A("G", "(d,)", "accumulated squares"), _g, _K,
              _A("eta", "", "learning rate")), (_A("theta", "(d,)", "parameters"), _A("xi", "(d,)", "error"), _A("G", "(d,)", "accumulated squares")),
              (), "Algorithm 7", "7:9", "error feedback; G + c^2: 2u (|G| + c^2); theta': u (|theta'| + 4 eta |step|)"),
    Operation("sign_step", (_A("x", "(d,)", "iterate"), _A("e", "(d,)", "error"), _g, _A("gamma", "", "learning rate")),
              (_A("x", "(d,)", "iterate"), _A("e", "(d,)", "error")), (), "slides, Algorithm 1", "S1:5",
              "|Delta_i - s sign p_i| <= (d + 4) u s, s = |p|_1 / d; x' - e' = x - p within 3u (|x| + |p| + s)"),
    Operation("scaled_top_k", (_A("v", "(d,)", "vector"), _A("H", "(d, d)", "positive definite"), _K), (_A("T", "(d,)", "H^1/2 TopK(H^-1/2 v)"),), (),
              "Lemma K.1", "K:6", "selection on H^-1/2 v within the roots' error, then a forward bound times cond(H)^1/2"),
)

_SHAPES = _A("shapes", "", "shape of every layer's tensor", "list")
_Q0 = _A("Q0", "", "starting Q of every layer of two or more dimensions", "list")
_RANK = _A("rank", "", "rho", "int")
_REPLAY = "replay: every step from the state that the target itself dumped, by the criteria above"

_OPTIMIZERS = (
    Optimizer("topk_sgd", (_D, _K), ("t", "xi"), "Algorithm 1 with A the identity", "1:8", _REPLAY),
    Optimizer("dense_mfac", (_D, _M, _LAM), ("t", "row", "G", "S"), "section 2.2", "W:4", _REPLAY),
    Optimizer("sparse_mfac", (_D, _M, _LAM, *_LAYOUT), ("t", "row", "xi", "indices", "values", "S"), "Algorithm 1 and section 3.1", "1:8", _REPLAY),
    Optimizer("low_rank_mfac", (_SHAPES, _M, _LAM, _RANK, _Q0), ("t", "row", "xi", "P0..", "Q0..", "S"), "Algorithm 6", "6:14", _REPLAY),
    Optimizer("dense_ggt", (_D, _M, _EPS, _CUTOFF), ("t", "row", "G"), "appendix H, dense", "4:11", _REPLAY),
    Optimizer("sparse_ggt", (_D, _M, _EPS, _CUTOFF, _K), ("t", "row", "xi", "indices", "values"), "Algorithm 4", "4:11", _REPLAY),
    Optimizer("adagrad_ef", (_D, _K), ("t", "xi", "G"), "Algorithm 7", "7:9", _REPLAY),
    Optimizer("ef_signsgd", (_D, _A("gamma", "", "learning rate")), ("t", "e"), "slides, Algorithm 1", "S1:5", _REPLAY),
)

OPERATIONS: dict[str, Operation] = {op.name: op for op in _OPERATIONS}  # by name
OPTIMIZERS: dict[str, Optimizer] = {op.name: op for op in _OPTIMIZERS}  # by name
NAMES: tuple[str, ...] = (*OPERATIONS, *OPTIMIZERS)  # the names of both
