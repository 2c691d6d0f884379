"""Every stated verdict is the measured one, and every inequality is clear of its margin, one way or the other."""

import functools
import json
import re
from pathlib import Path

import pytest

from efcp_ref.claims import comparators, heavy, page, trained
from efcp_ref.claims.book import ORDER, claims
from efcp_ref.claims.core import CLAIMS, HOLDS, NOT, PART, SEEDS, UNTESTABLE, Condition, Measured
from efcp_ref.claims.methods import NAMES, Size, build
from efcp_ref.claims.train import Setting, train

FAST = (0, 1)  # seeds of the fast form
TRAINED = [claim.id for claim in claims() if claim.trained]
COMPUTED = [claim.id for claim in claims() if not claim.trained]


@functools.cache
def on_five_seeds(id):
    """A trained claim's numbers: measured once, since several tests look at them."""
    return CLAIMS[id].measure(SEEDS)


def held(claim, measured):
    assert measured.verdict == claim.verdict, [(c.text, c.left, c.right) for c in measured.conditions if not c.met]
    for condition in measured.conditions:
        assert condition.met or condition.refuted, f"{condition.text}: too close to call"


@pytest.mark.parametrize("id", COMPUTED)
def test_a_computed_claim_holds_its_verdict_on_two_seeds(id):
    held(CLAIMS[id], CLAIMS[id].measure(FAST))


@pytest.mark.parametrize("id", TRAINED)
def test_a_trained_claim_holds_its_verdict_on_the_cached_runs(id):
    held(CLAIMS[id], on_five_seeds(id))


@pytest.mark.slow
@pytest.mark.parametrize("id", COMPUTED)
def test_a_computed_claim_holds_its_verdict_on_five_seeds(id):
    held(CLAIMS[id], CLAIMS[id].measure(SEEDS))


# ---- the cached runs are what the code gives ---------------------------------------------------------------------


def test_every_setting_has_its_five_runs():
    done = heavy.read()
    for group in heavy.GROUPS:
        for name, setting in heavy.settings_of(group, done).items():
            for seed in heavy.seeds_of(group):
                assert (setting.key, seed) in done, f"{group}: {name}, seed {seed}"


def test_the_cache_holds_nothing_else():
    """A run of a setting that is no longer used would be taken for one of its name."""
    done = heavy.read()
    wanted = {
        (setting.key, seed)
        for group in heavy.GROUPS
        for setting in heavy.settings_of(group, done).values()
        for seed in heavy.seeds_of(group)
    }
    assert set(done) == wanted


def test_the_cached_comparators_are_those_of_the_grid():
    done = heavy.read(comparators.FILE)
    assert comparators.complete(done) == list(comparators.GRID)
    tuning = {(comparators.key(n, *pair), heavy.TUNING_SEED) for n in comparators.GRID for pair in comparators.tried(n)}
    chosen = {(comparators.key(n, *comparators.chosen(n, done)), seed) for n in comparators.GRID for seed in SEEDS}
    assert set(done) == tuning | chosen


def test_no_comparator_is_tuned_less_than_a_method_of_this_package():
    budgets = [len(comparators.tried(name)) for name in comparators.GRID]
    assert min(budgets) >= min(len(rates) for _, _, rates in heavy.TUNED.values()) >= 3


def test_a_claim_names_the_runs_that_it_reads():
    assert "m = 8, rate 0.1" in trained.needed(CLAIMS["window-size"])
    assert not any(name.startswith("lr ") for name in trained.needed(CLAIMS["window-size"]))
    known = frozenset().union(*map(heavy.names_of, heavy.GROUPS))
    for claim in claims():
        if claim.trained:
            assert {n for n in trained.needed(claim) if not n.endswith(")")} <= known


def again(setting, seed):
    """A cached run and the same run made now."""
    return heavy.read()[setting.key, seed], train(setting, seed)


def test_a_cached_run_is_what_the_code_gives():
    setting = heavy.tuning_settings()["SignSGD, mlp, lr 0.001"]  # one of the shortest: about a second
    cached, now = again(setting, heavy.TUNING_SEED)
    assert now["curve"][1][1] == pytest.approx(cached["curve"][1][1], rel=1e-6)  # step 32: before rounding grows
    assert now["accuracy"] == pytest.approx(cached["accuracy"], abs=1.0)


def test_a_window_in_the_cache_is_what_the_code_gives():
    setting = heavy.corner_settings()["lr 0.01, lam 0.001"]
    cached, now = again(setting, 0)
    assert now["curve"][1][1] == pytest.approx(cached["curve"][1][1], rel=1e-6)
    assert now["loss"] == pytest.approx(cached["loss"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["D-MFAC", "S-MFAC 1 %", "S-MFAC 1 %, no feedback", "LR-MFAC rank 1", "S-GGT 1 %"])
def test_a_long_run_in_the_cache_is_what_the_code_gives(name):
    cached, now = again(heavy.mfac_settings()[name], 0)
    assert now["loss"] == pytest.approx(cached["loss"], rel=0.2)
    assert now["accuracy"] == pytest.approx(cached["accuracy"], abs=1.0)


def test_two_runs_are_one_and_the_same():
    setting = Setting("sparse_mfac", 1e-2, {"m": 8, "lam": 1e-3, "density": 0.05}, model="softmax", steps=40)
    first, second = ({k: v for k, v in train(setting, 3).items() if k != "seconds"} for _ in range(2))
    assert json.dumps(first) == json.dumps(second)


@pytest.mark.parametrize("name", [name for name in NAMES if "mfac" in name or "ggt" in name])
def test_the_methods_in_place_are_the_reference(name):
    """The windows written in place give the reference optimizers' directions, to rounding."""
    import numpy as np

    import efcp_ref
    from efcp_ref.claims import methods

    d, m, shapes = 30, 4, ((5, 5), (5,))
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((9, d))
    options = {
        "dense_mfac": {"m": m, "lam": 0.1}, "sparse_mfac": {"m": m, "lam": 0.1, "density": 0.2},
        "random_mfac": {"m": m, "lam": 0.1, "density": 1.0}, "low_rank_mfac": {"m": m, "lam": 0.1, "rank": 2},
        "ggt": {"m": m, "eps": 0.1, "density": 0.2},
    }[name]  # fmt: skip
    method = build(name, Size(d, shapes), options, True, 7)
    Q0 = [np.random.default_rng(7).standard_normal((5, 2))]
    reference = {
        "dense_mfac": lambda: efcp_ref.dense_mfac(d=d, m=m, lam=0.1),
        "sparse_mfac": lambda: efcp_ref.sparse_mfac(d=d, m=m, lam=0.1, block_size=methods.BLOCK, density=0.2),
        "random_mfac": lambda: efcp_ref.dense_mfac(d=d, m=m, lam=0.1),
        "low_rank_mfac": lambda: efcp_ref.low_rank_mfac(shapes=shapes, m=m, lam=0.1, rank=2, Q0=Q0),
        "ggt": lambda: efcp_ref.sparse_ggt(d=d, m=m, eps=0.1, cutoff=1e-12, k=6),
    }[name]()  # fmt: skip
    for g in gradients:
        assert method.step(g, 1.0) == pytest.approx(reference.step(g), rel=1e-9, abs=1e-9)


# ---- conditions and the page -------------------------------------------------------------------------------------


def test_a_condition_is_met_refuted_or_open():
    assert Condition("", 1.0, 2.0).met
    assert Condition("", 2.0, 1.0).refuted
    close = Condition("", 1.0, 1.05)
    assert not close.met
    assert not close.refuted
    assert Condition("", 1.0, 1.0, 1.0).met
    assert not Condition("", 1.0, 1.0, 1.0).refuted


def test_the_verdict_follows_from_the_conditions():
    yes, no = Condition("", 1.0, 2.0), Condition("", 2.0, 1.0)
    assert Measured(conditions=(yes, yes)).verdict == HOLDS
    assert Measured(conditions=(yes, no)).verdict == PART
    assert Measured(conditions=(no,)).verdict == NOT
    assert Measured().verdict == UNTESTABLE


def test_at_least_ten_claims_each_with_words_source_and_figure():
    assert len(claims()) >= 10
    assert set(ORDER) == set(CLAIMS)
    for claim in claims():
        assert len(claim.quote) > 20
        assert len(claim.words) > 20
        assert re.search(r"line|readings", claim.source)
        assert (claim.draw is None) == (claim.alt == "")


def test_the_page_holds_every_claim_and_no_open_placeholder():
    found = [(CLAIMS[id], CLAIMS[id].measure(FAST)) for id in ("table-12", "memory", "sparse-ggt")]
    text = page.page(found)
    for claim, measured in found:
        assert f"{{ #{claim.id} }}" in text
        assert f"**Verdict: {measured.verdict}.**" in text
        assert claim.alt in text
    assert "Table 2 (BERT, GLUE/MNLI)" in text
    assert not re.search(r"\{(?! #)\w", text)


def test_every_sentence_about_numbers_can_be_filled():
    for claim in claims():
        if claim.trained:
            measured = on_five_seeds(claim.id)
            assert "{" not in claim.words.format(**measured.data.get("say", {}))


def test_other_runs_can_be_read(tmp_path):
    file = tmp_path / "runs.jsonl"
    heavy.append(file, {"key": "k", "seed": 0, "group": "mfac", "name": "one", "loss": 1.0})
    with file.open("a") as out:
        out.write('{"key": "half')  # as a kill leaves it
    try:
        trained.use(file)
        assert set(trained.records()) >= {"one"}
    finally:
        trained.use(heavy.FILE)


# ---- the committed page ------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"
EXACT = [claim.id for claim in claims() if claim.trained or claim.id in ("memory", "table-12", "against-itself")]


@pytest.mark.parametrize("id", EXACT)
def test_the_committed_page_says_what_the_runs_say(id):
    assert page.section(CLAIMS[id], on_five_seeds(id)) in PAGE.read_text()


def test_the_committed_page_has_every_section_verdict_and_figure():
    text = PAGE.read_text()
    for claim in claims():
        verdict = re.search(rf"\{{ #{claim.id} \}}\n\n\*\*Verdict: (.*)\.\*\*", text)
        assert verdict
        assert verdict[1] == claim.verdict
        assert claim.draw is None or (PAGE.parent / page.FIGURES / f"{claim.id}.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_the_whole_page_is_made_again(tmp_path):
    assert page.write(tmp_path) == []
    assert (tmp_path / "claims.md").read_text() == PAGE.read_text()
