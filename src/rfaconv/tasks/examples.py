"""Which images a report shows of two models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def choose_by_gain(gains: Sequence[float], count: int) -> list[int]:
    """At most `count` images: a third where the variant gains most, a third where it loses most, others evenly.

    Args:
        gains: of the variant over the baseline, one an image.
        count: how many.
    """
    order = [int(index) for index in np.argsort(-np.asarray(gains), kind="stable")]
    third = count // 3
    chosen = order[:third] + order[len(order) - third :]
    rest = [index for index in range(len(gains)) if index not in set(chosen)]
    places = np.linspace(0, len(rest) - 1, min(count - 2 * third, len(rest))).round().astype(int) if rest else []
    return list(dict.fromkeys([*chosen, *(rest[place] for place in places)]))[:count]
