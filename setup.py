"""Builds the CPU kernel (csrc/) where there is a C++ compiler and torch's headers; the rest is in pyproject.toml.

The kernel uses torch's stable ABI: one binary serves every Python and every torch from 2.10 on. It is optional: without
it the installation succeeds, and rfaconv says once, when it would have used it, that it computes the slow way.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

TARGET_TORCH = "0x020a000000000000"  # 2.10, the first with all we need
FLAGS = ["-std=c++20", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast"]
FLAGS += ["-Wno-psabi", "-Wno-maybe-uninitialized"]  # noise of GCC 12 over its own headers
# Each instruction set's kernels are the same source with other flags; which one runs is decided at run time.
INSTRUCTIONS = {
    "kernels_avx2.cpp": ["-mavx2", "-mfma"],
    "kernels_avx512.cpp": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"],
}


def torch_folder() -> Path:
    """Where torch is installed; not imported: in pip's build environment it is out of sight, not out of reach."""
    spec = importlib.util.find_spec("torch")
    folders = [Path(spec.origin).parent] if spec is not None and spec.origin else []
    folders += [Path(sysconfig.get_paths()[kind]) / "torch" for kind in ("purelib", "platlib")]
    for folder in folders:
        if (folder / "include/torch/csrc/stable/c/shim.h").exists():
            return folder
    raise CompileError("torch 2.10 or later must be installed before rfaconv for its CPU kernel to be built")


def sources() -> list[str]:
    names = [*sorted(str(path) for path in Path("csrc/ops").glob("*.cpp")), "csrc/kernels_baseline.cpp"]
    if platform.machine().lower() in ("x86_64", "amd64"):
        names += ["csrc/kernels_avx2.cpp", "csrc/kernels_avx512.cpp"]
    return names


class BuildKernel(build_ext):
    """Compiles each source with its own flags."""

    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"  # no Python in it, so no Python version in its name

    def build_extension(self, ext: Extension) -> None:
        if sys.platform == "win32":
            raise CompileError("the CPU kernel is not built on Windows")
        torch = torch_folder()
        objects = []
        for source in ext.sources:
            own = INSTRUCTIONS.get(Path(source).name, [])
            include = []
            if Path(source).parent.name == "ops":
                include = [f"-I{torch / 'include'}", f"-DTORCH_TARGET_VERSION={TARGET_TORCH}"]
            objects += self.compiler.compile(
                [source], output_dir=self.build_temp, extra_postargs=[*FLAGS, *own, *include], depends=ext.depends
            )
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            library_dirs=[str(torch / "lib")],
            libraries=["torch_cpu"],
            target_lang="c++",
        )


class PlatformWheel(bdist_wheel):
    """One wheel a platform, for every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


headers = [str(path) for folder in ("csrc", "csrc/ops") for path in Path(folder).glob("*.h")]
setup(
    ext_modules=[Extension("rfaconv.ops.cpu._kernels", sources(), depends=headers, optional=True, language="c++")],
    cmdclass={"build_ext": BuildKernel, "bdist_wheel": PlatformWheel},
)
