# SPDX-License-Identifier: Apache-2.0
"""How many images a study needs for an interval of a half width, where it finds a value that is expected."""

from __future__ import annotations

import math
from collections.abc import Callable

from dual_skd.errors import InputError
from dual_skd.metrics.estimates import LEVEL
from dual_skd.metrics.score_intervals import area_score_interval, wilson_interval

_MOST = 10**9  # images; no study is larger


def images_for_share(share: float, half_width: float, level: float = LEVEL) -> int:
    """Fewest independent images for which the interval of Wilson 1927 of a share isn't wider than wanted.

    Args:
        share: that is expected, such as a sensitivity; of the images of its class.
        half_width: half of the distance between the limits.
        level: of the interval.

    Raises:
        InputError: a share, half width or level that can't be.

    Example:
        >>> images_for_share(0.9, 0.05), images_for_share(0.5, 0.05)
        (141, 381)
    """
    _check(share, half_width, level)

    def half(count: int) -> float:
        low, high = wilson_interval(share * count, count, level)
        return (high - low) / 2

    return _fewest(half, half_width)


def images_for_auc(area: float, half_width: float, prevalence: float, level: float = LEVEL) -> tuple[int, int]:
    """Fewest independent images with and without a class for an interval of the area under the ROC curve.

    The interval is that of Newcombe 2006 (Statistics in Medicine 25:559, method 5): the variance of Hanley and McNeil
    1982 (Radiology 143:29) with the mean number of images on a side, at the limit and not at the estimate. So an area
    of 1, too, needs a number of images.

    Args:
        area: that is expected.
        half_width: half of the distance between the limits.
        prevalence: share of the images that are of the class.
        level: of the interval.

    Raises:
        InputError: an area, half width, prevalence or level that can't be.

    Example:
        >>> images_for_auc(0.8, 0.05, 0.5)
        (151, 151)
    """
    _check(area, half_width, level)
    if not 0 < prevalence < 1:
        raise InputError(f"Expected a prevalence above 0 and below 1, found {prevalence:g}.")

    def half(images: int) -> float:
        low, high = area_score_interval(area, prevalence * images, (1 - prevalence) * images, level=level)
        return (high - low) / 2

    images = _fewest(half, half_width, least=2)
    return math.ceil(prevalence * images - 1e-9), math.ceil((1 - prevalence) * images - 1e-9)


def _fewest(half: Callable[[int], float], wanted: float, least: int = 1) -> int:
    """Smallest number whose half width is as wanted; half widths fall with the number."""
    low, high = least, least
    while half(high) > wanted and high < _MOST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if half(middle) <= wanted else (middle, high)
    return low if half(low) <= wanted else high


def _check(value: float, half_width: float, level: float) -> None:
    if not (0 <= value <= 1 and 0 < half_width < 0.5 and 0 < level < 1):
        raise InputError(
            f"Expected a value from 0 to 1, a half width above 0 and below 0.5, and a level between 0 and 1; found "
            f"{value:g}, {half_width:g} and {level:g}."
        )
