"""What tests of commands share: the one sentence a mistake gets, and a network that counts who asks for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rfaconv.cli import main

NO_NETWORK = """
import os, socket, subprocess, sys
import urllib.request
attempts = []

def refuse(*args, **kwargs):
    attempts.append(args)
    raise OSError("no network")

class Started(subprocess.Popen):
    def __init__(self, args, *more, **kwargs):
        program = args if isinstance(args, str) else args[0]
        if program not in ("/sbin/ldconfig", "xpu-smi"):  # looking for a library, or for one maker's GPU, is no network
            attempts.append(args)
        super().__init__(args, *more, **kwargs)

subprocess.Popen = Started
os.system = refuse

for name in ("getaddrinfo", "create_connection", "gethostbyname"):
    setattr(socket, name, refuse)
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse
urllib.request.urlopen = refuse
"""
"""The beginning of a program without a network; `attempts` are the calls that wanted one, and programs started."""

WATCHED = f"""{NO_NETWORK}
import PIL.Image
from rfaconv.cli import main
before = PIL.Image.open
try:
    main()
finally:
    print("attempts", attempts, PIL.Image.open is before)
"""
"""`rfaconv` without a network; its last line is "attempts [] True" where it asked for none and left PIL as it was."""


def assert_mistake(
    arguments: list[str],
    words: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Assert that `rfaconv ARGUMENTS`, typed in `folder`, says `words` in one sentence and ends with exit code 2."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["rfaconv", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert words in error
    assert len(error.strip().splitlines()) == 1
