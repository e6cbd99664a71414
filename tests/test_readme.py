"""The Python in the README and in docs/conversion.md runs, each block as a program of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = "".join((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/conversion.md"))
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(block: str) -> None:
    program = block if "import rfaconv" in block or "from rfaconv" in block else f"import rfaconv\n{block}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for promised in re.findall(r"print\(.*#\s*(.*)", block):
        assert promised in done.stdout


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 6
