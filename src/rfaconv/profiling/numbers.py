"""How numbers are written for people: the same on the page, in the terminal and in the sentences.

Minus signs are plain hyphens, so that a terminal without Unicode prints them too.
"""

from __future__ import annotations

from rfaconv.profiling.timing import Ratio

MISSING = "n/a"


def percent(fraction: float) -> str:
    """0.8842 as "88.42 %"."""
    return f"{100 * fraction:.2f} %"


def points(fraction: float, sign: bool = True) -> str:
    """A difference of fractions in percentage points: 0.0031 as "+0.31", or as "0.31" without the sign.

    A difference that two decimals would show as zero gets four, so that it is not mistaken for none.
    """
    value = 100 * fraction
    decimals = 4 if 0.00005 <= abs(value) < 0.005 else 2
    text = f"{abs(value):.{decimals}f}"
    if not sign:
        return text
    return ("-" if value < 0 and float(text) else "+") + text


def amount(count: float) -> str:
    """A number of parameters or multiply-adds: "0.31 M", "10.2 M", "1.82 G"."""
    for unit, name, least in ((1e9, "G", 0.9995e9), (1e6, "M", 1e5), (1e3, "k", 1e3)):
        if count >= least:
            return f"{three_digits(count / unit)} {name}"
    return f"{count:.0f}"


def times(ratio: Ratio | None) -> str:
    """A ratio's median: "1.05x"; "n/a" where it was not measured."""
    return MISSING if ratio is None else f"{three_digits(ratio.median)}x"


def quartiles(ratio: Ratio | None) -> str:
    """A ratio's quartiles: "1.03 to 1.08"; nothing where there is no spread to show."""
    if ratio is None or ratio.low == ratio.high:
        return ""
    return f"{three_digits(ratio.low)} to {three_digits(ratio.high)}"


def milliseconds(value: float) -> str:
    """A duration given in milliseconds: "3.21 ms"."""
    return f"{three_digits(value)} ms"


def mebibytes(value: float) -> str:
    """A size given in MiB: "812 MiB"."""
    return f"{three_digits(value)} MiB"


def duration(seconds: float) -> str:
    """A wall time: "48 s", "12 min 05 s", "3 h 07 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def three_digits(value: float) -> str:
    """Three digits, or all before the point: "1.05", "10.2", "812"."""
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{decimals}f}"
