"""One command a folder, and what a killed one leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rfaconv.errors import OutputError, UserError
from rfaconv.locks import folder_lock

HOLD = "import sys, time; from pathlib import Path; from rfaconv.locks import folder_lock\n"
HOLD += "with folder_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_holds_it_and_a_killed_one_s_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    process = holder(folder)
    with pytest.raises(UserError, match=f"in use by process {process.pid} on "), folder_lock(folder):
        pass
    left = folder / "runs" / ".last.ckpt.k3v9_x2a.partial"
    left.parent.mkdir()
    left.write_bytes(b"half")
    process.send_signal(signal.SIGKILL)
    process.wait()
    with folder_lock(folder):
        assert json.loads((folder / ".lock").read_text())["pid"] == os.getpid()
        assert not left.exists()


def test_it_is_given_back_at_once(tmp_path: Path) -> None:
    for _ in range(2):
        with folder_lock(tmp_path):
            pass
    start = time.perf_counter()
    process = holder(tmp_path)
    assert time.perf_counter() - start < 60
    process.kill()
    process.wait()


def test_other_hidden_files_stay(tmp_path: Path) -> None:
    for name in (".keep", ".gitignore", ".notes.txt"):
        (tmp_path / name).touch()
    with folder_lock(tmp_path):
        pass
    assert {file.name for file in tmp_path.iterdir()} == {".keep", ".gitignore", ".notes.txt", ".lock"}


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; choose another --out"), folder_lock(tmp_path / "file"):
        pass
    with pytest.raises(OutputError, match="Not a directory"), folder_lock(tmp_path / "file" / "below"):
        pass
