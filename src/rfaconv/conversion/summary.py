"""What a conversion did, as data and as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rfaconv.conversion.places import Skipped
from rfaconv.conversion.verification import Deviation


@dataclass(frozen=True)
class Replaced:
    """One layer in the place of one convolution.

    Attributes:
        name: of the module; aliases: its other names, where it hangs in several places.
        sizes: "64 -> 128, 3x3, stride 2" and the like.
        start: why it computes the same, in words.
        params: before and after.
    """

    name: str
    layer: str
    sizes: str
    start: str
    params: tuple[int, int]
    aliases: tuple[str, ...] = ()


@dataclass
class Summary:
    """What `convert` or `simplify` did; `print` shows it as a table.

    Attributes:
        what: the short name of the new layers, or "conv" for `simplify`.
        replaced, skipped: in the order of the model.
        notes: what its user should know, in sentences.
        params: of the model before and after.
        macs: multiply-adds of one image before and after; None where nothing was run.
        deviation: the largest over the calibration batches; None where nothing was compared.
        tolerance: what it was held against.
        batches: how many batches were run.
    """

    what: str
    replaced: list[Replaced] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    params: tuple[int, int] = (0, 0)
    macs: tuple[int, int] | None = None
    deviation: Deviation | None = None
    tolerance: float | None = None
    batches: int = 0

    def __str__(self) -> str:
        rows = [("place", "sizes", "params", "start")]
        for place in self.replaced:
            name = " = ".join((place.name, *place.aliases))
            rows.append((name, place.sizes, f"{place.params[0]:,} -> {place.params[1]:,}", place.start))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        head = f"{len(self.replaced)} convolution{'s' * (len(self.replaced) != 1)} became '{self.what}'"
        lines = [f"{head}, {len(self.skipped)} stayed."]
        if self.replaced:
            table = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows]
            lines += [table[0], "-" * max(map(len, table)), *table[1:]]
        for reason, count in Counter(skip.reason for skip in self.skipped).items():
            names = [skip.name for skip in self.skipped if skip.reason == reason]
            lines.append(f"stayed: {', '.join(names[:3])}{', ...' * (count > 3)} ({count}): {reason}")
        lines.append(f"params {self.params[0]:,} -> {self.params[1]:,}")
        if self.macs is not None:
            lines.append(f"MACs of one image {self.macs[0]:,} -> {self.macs[1]:,}")
        lines += [*self.notes, self.verdict()]
        return "\n".join(lines)

    def verdict(self) -> str:
        """What was compared, and how it came out."""
        if self.deviation is None:
            return "Not verified: there was no calibration data to run both models on."
        batches = f"{self.batches} batch{'es' * (self.batches != 1)}"
        return (
            f"Verified on {batches}: largest deviation {self.deviation.relative:.1e} of the largest value "
            f"({self.deviation.where}), tolerance {self.tolerance:.0e}."
        )


def sizes_in_words(conv: Any) -> str:
    """ "64 -> 128, 3x3, stride 2" of a Conv2d or a layer of the family."""
    words = f"{conv.in_channels} -> {conv.out_channels}, {'x'.join(map(str, conv.kernel_size))}"
    for what, value in (("stride", conv.stride), ("dilation", conv.dilation)):
        words += "" if set(value) == {1} else f", {what} {value[0] if len(set(value)) == 1 else value}"
    return words + (f", groups {conv.groups}" if conv.groups > 1 else "")
