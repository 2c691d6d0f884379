"""Cases: what a target is judged on, rebuilt from ``(operation, seed, index)`` alone.

The first indices of every operation walk fixed recipes, the families in turn; after them random ones follow for ever.
Sizes and numbers of a recipe are drawn from a generator seeded with all three, so a case depends on no other case.
Integers are the same on every machine; normal numbers and recorded gradients go through the machine's own exp and sums
in float64 and are then rounded to float32, which hides differences in their last bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from zlib import crc32

import numpy as np

from efcp_ref.contract import NAMES
from efcp_ref.oracle.cases import adversarial, exact, generic, large, optimizers, real
from efcp_ref.oracle.cases.build import Recipe
from efcp_ref.oracle.core import Case, dressed
from efcp_ref.paper import _validate as check

ORDER = ("exact", "adversarial", "generic", "adversarial", "real", "adversarial")  # one round of the fixed recipes
FAMILIES: dict[str, dict[str, tuple[Recipe, ...]]] = {
    name: {**module.FAMILY, **optimizers.FAMILIES[name]}
    for name, module in (("exact", exact), ("adversarial", adversarial), ("generic", generic), ("real", real))
}


def _interleaved(operation: str) -> tuple[Recipe, ...]:
    """Return the fixed recipes: every round takes the next of each family, three of the adversarial ones."""
    families = {name: FAMILIES[name][operation] for name in FAMILIES}
    columns = [families[name] for name in ORDER if name != "adversarial"]
    corners = families["adversarial"]
    rounds = zip_longest(columns[0], corners[::3], columns[1], corners[1::3], columns[2], corners[2::3])
    return tuple(recipe for one in rounds for recipe in one if recipe is not None)


FIXED: dict[str, tuple[Recipe, ...]] = {operation: _interleaved(operation) for operation in NAMES}
RANDOM: dict[str, tuple[Recipe, ...]] = {
    operation: tuple(recipe for recipe in FIXED[operation] if "large" not in recipe.flags) for operation in NAMES
}


def recipe(operation: str, index: int) -> Recipe:
    """Return the recipe of a case: the fixed ones first, then those that are not large, over and over.

    From `large.FIRST` on: the operation's cases of the paper's sizes.
    """
    if index >= large.FIRST:
        check.choice("index", index, tuple(large.indices(operation)))
        return large.FAMILY[operation][index - large.FIRST]
    fixed = FIXED[operation]
    return fixed[index] if index < len(fixed) else RANDOM[operation][(index - len(fixed)) % len(RANDOM[operation])]


def generate(operation: str, seed: int, index: int) -> Case:
    """Return one case, float64 arguments in calling order.

    Args:
        operation: a name of the contract, operation or optimizer.
        seed: at least 0.
        index: at least 0; see `standard`.

    Returns:
        The case; its arrays are new at every call, read-only or strided where it is flagged so.

    Raises:
        TypeError, ValueError: no such operation, or a number out of range.

    >>> case = generate("sp", 0, 0)
    >>> case.id, case.family, list(case.arguments)
    ('sp:0:0:float64', 'exact', ['indices', 'values', 'g', 'block_size', 'density'])
    """
    operation = check.choice("operation", operation, NAMES)
    seed, index = check.integer("seed", seed, 0), check.integer("index", index, 0)
    chosen = recipe(operation, index)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([crc32(operation.encode()), seed, index])))
    arguments = dressed(chosen.make(rng), chosen.flags)
    return Case(operation, chosen.family, chosen.label, seed, index, arguments, chosen.flags, why=chosen.why)


def standard(operation: str, cases: int, seed: int = 0) -> Iterator[Case]:
    """Yield the first cases of an operation: a smaller number gives a prefix of a larger one.

    >>> [case.family for case in standard("lcg", 6)]
    ['exact', 'adversarial', 'generic', 'adversarial', 'real', 'adversarial']
    """
    for index in range(check.integer("cases", cases, 1)):
        yield generate(operation, seed, index)
