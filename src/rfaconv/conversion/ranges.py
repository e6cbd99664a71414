"""Which values a tensor can have, followed through a model as it runs.

A convolution can be kept exactly only where its input has a lower bound. Here that bound is proved rather than looked
up: every tensor of a run carries an interval, and a table (`rules`) says what each function does to it. What the table
does not know has no bound. The values themselves do not matter, so a run on stand-in tensors without memory does as
well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from rfaconv.conversion.rules import RULES, UNKNOWN, Range, plain_name


class RangeMode(TorchFunctionMode):
    """Inside it, `of(tensor)` is the range of any tensor made there."""

    def __init__(self) -> None:
        super().__init__()
        self._known = WeakTensorKeyDictionary()

    def of(self, value: Any) -> Range:
        """A number is its own range; an unseen tensor has no bounds."""
        if isinstance(value, Tensor):
            found: Range = self._known.get(value, UNKNOWN)
            return found
        return Range(value, value) if isinstance(value, int | float) else UNKNOWN

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = plain_name(func)
        rule = RULES.get(name)
        found = UNKNOWN if rule is None or not args else rule(self.of, func, args, kwargs)
        out = func(*args, **kwargs)
        changed = args[0] if args and isinstance(args[0], Tensor) and _is_inplace(func, kwargs) else None
        if changed is not None:
            self._forget(changed)
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._known[tensor] = found
        return out

    def _forget(self, changed: Tensor) -> None:
        """Its memory was written to: what was known of all its views is known no more."""
        storage = changed.untyped_storage()._cdata
        for tensor in list(self._known.keys()):
            if tensor.untyped_storage()._cdata == storage:
                self._known[tensor] = UNKNOWN


def _is_inplace(func: Any, kwargs: Mapping[str, Any]) -> bool:
    name: str = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name in ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__setitem__")
    return name.endswith("_") or bool(kwargs.get("inplace"))
