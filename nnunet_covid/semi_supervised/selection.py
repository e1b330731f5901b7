"""Which images of the pool are labelled next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np


def draw_at_random(remaining: Iterable[str], count: int, seed: int) -> list[str]:
    """``count`` of the remaining cases, or all of them if there are fewer; sorted.

    The draw depends on the set of cases and the seed alone, not on their order.
    """
    cases = sorted(remaining)
    if len(cases) <= count:
        return cases
    chosen = np.random.default_rng(seed).choice(len(cases), size=count, replace=False)
    return sorted(cases[i] for i in chosen)


def most_confident(confidence: Mapping[str, float], count: int) -> list[str]:
    """The ``count`` cases of highest confidence, the earlier name first among equals; sorted."""
    ranked = sorted(confidence, key=lambda case: (-confidence[case], case))
    return sorted(ranked[:count])
