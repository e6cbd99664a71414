"""What is told of the machine, and what is not."""

from __future__ import annotations

import getpass
import os
import platform
import socket
import sys
from pathlib import Path

import pytest
import torch

import rfaconv
from rfaconv.profiling import host, machine


def test_the_facts() -> None:
    facts = machine()
    assert list(facts)[:10] == (
        ["cpu", "cores", "threads", "instructions", "memory", "gpu", "os", "python", "torch", "rfaconv"]
    )
    assert all(isinstance(value, str) and value for value in facts.values())
    assert (facts["torch"], facts["rfaconv"]) == (str(torch.__version__), rfaconv.__version__)
    assert facts["threads"] == str(torch.get_num_threads())


def test_it_does_not_tell_whose_machine_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    uname = platform.uname()
    marked = uname._replace(
        node="secrethost", release=f"{uname.release}-secrethost", version="#1 secretuser@secrethost"
    )
    monkeypatch.setattr(platform, "uname", lambda: marked)
    monkeypatch.setattr(socket, "gethostname", lambda: "secrethost")
    for name in ("USER", "LOGNAME", "USERNAME", "HOSTNAME", "COMPUTERNAME"):
        monkeypatch.setenv(name, "secretuser")
    assert getpass.getuser() == "secretuser"
    told = " ".join(machine().values())
    assert "secret" not in told
    for path in (Path.home(), Path.cwd(), Path(sys.prefix), Path(rfaconv.__file__).parent):
        assert str(path) not in told


def test_a_platform_that_can_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> str:
        raise OSError("not here")

    monkeypatch.setattr(platform, "system", lambda: "Plan 9")
    monkeypatch.setattr(platform, "freedesktop_os_release", fails)
    for name in ("processor", "machine", "python_version"):
        monkeypatch.setattr(platform, name, fails)
    for name in ("sched_getaffinity", "sysconf"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", fails)
    monkeypatch.setattr(host, "_LIBRARIES", ("no-such-library",))
    facts = machine()
    assert {facts[name] for name in ("cpu", "memory", "gpu", "python")} == {"unknown"}
    assert facts["os"].startswith("Plan 9")
    assert "no-such-library" not in facts


def test_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        stdout = "Apple M9\n"

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(host.subprocess, "run", lambda *arguments, **options: Done)
    facts = machine()
    assert (facts["cpu"], facts["os"]) == ("Apple M9", "macOS 26.1")
