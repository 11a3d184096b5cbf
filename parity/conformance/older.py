"""Programs that draw with JAX 0.4.13, on which upstream was written; they are written by hand.

Later versions draw other numbers in places: since then JAX computes ``erf``, and by it
``truncated_normal``, in other steps. The port follows the older one, so these programs allow no
departure.
"""

from __future__ import annotations

from itertools import combinations

from parity.conformance.text import Program

FAMILY = "older"
LENGTH = 4096
"""Numbers of a draw, of which every 64th is recorded.

XLA computes the bounds of short draws in other steps, by which single numbers move.
"""
_BOUNDS = (  # most of them divided by sqrt(2) differ from the product with 1 / sqrt(2)
    *(-7.97, -6, -4.98, -3.97, -3.49, -3, -2.49, -1.98, -1.5, -0.99, -0.48, 0.0),
    *(0.27, 0.51, 1.02, 1.5, 2.01, 2.51, 3, 3.53, 4.02, 5.02, 6, 8.01),
)
_SCALES = (1e-30, 1e-6, 0.3, 1.0, 7.0, 1e4, 1e30)
_RANGES = ((0, 10), (-5, 5), (0, 2**31 - 1), (-(2**31), 2**31 - 1), (7, 1_000_000), (3, 3), (5, 2))


def older_programs() -> list[Program]:
    """All of them, in both layouts.

    >>> len({program.text for program in older_programs()}) == len(older_programs())
    True
    """
    return [
        Program(FAMILY, f"key = xp.random.PRNGKey({seed})", result, False, newer, bound, False, ())
        for seed, (result, bound) in enumerate(_draws())
        for newer in (False, True)
    ]


def _draws() -> list[tuple[str, str]]:
    """Expressions of draws, and how they are compared."""
    pairs = ", ".join(f"({low}, {high})" for low, high in combinations(_BOUNDS, 2))
    scales = ", ".join(f"({-low}, {high})" for low in _SCALES for high in _SCALES)
    ranges = ", ".join(map(str, _RANGES))
    each = f"({LENGTH},))[::64]"
    weights = "xp.array([0.1, 0.4, 0.2, 0.3], 'float32')"
    return [
        (f"[xp.random.truncated_normal(key, *ends, {each} for ends in [{pairs}]]", "ulp"),
        (
            f"[xp.random.uniform(key, minval=a, maxval=b, shape={each} for a, b in [{scales}]]",
            "equal",
        ),
        (f"[xp.random.randint(key, ({LENGTH},), *b)[::64] for b in [{ranges}]]", "equal"),
        (f"xp.random.normal(key, ({16 * LENGTH},))[::64]", "ulp"),
        (f"[xp.random.bernoulli(key, p, {each} for p in [0.0, 0.1, 0.5, 1.0]]", "equal"),
        (f"xp.random.gumbel(key, {each}", "close"),
        (f"[xp.random.permutation(key, n) for n in [1, 7, 40, {LENGTH}]]", "equal"),
        (f"xp.random.choice(key, {LENGTH}, (40,), False)", "equal"),
        (f"xp.random.choice(key, 4, (99,), True, {weights})", "equal"),
        (f"xp.random.choice(key, 4, (3,), False, {weights})", "equal"),
        (
            f"xp.random.categorical(key, xp.array({list(range(8))}, 'float32'), shape=(99,))",
            "equal",
        ),
        ("xp.vmap(lambda n: xp.random.fold_in(key, n))(np.arange(50))", "equal"),
        ("[xp.random.split(key, n) for n in [1, 2, 3, 100]]", "equal"),
    ]
