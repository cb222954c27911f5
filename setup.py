"""Compile the CPU kernels, one library for each instruction set; what cannot be compiled is left out.

The libraries hold plain C functions (foveate.kernels.cpu loads them with ctypes) and need no headers of PyTorch or
Python, so that one wheel serves every Python. Everything else about the package is in pyproject.toml.
"""

import hashlib
import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = "src/foveate/kernels/cpu"
KERNELS, HEADERS = (sorted(Path(SOURCES).glob(pattern)) for pattern in ("*.cpp", "*.h"))
# foveate.kernels.cpu compares it with the sources beside a library: after an update of a clone they may be newer.
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in [*KERNELS, *HEADERS])).hexdigest()
FLAGS = ["-std=c++17", "-O3", "-fopenmp", "-fvisibility=default", "-Wno-psabi"]
INSTRUCTION_SETS = {"any": []}
if platform.machine() in ("x86_64", "AMD64"):
    INSTRUCTION_SETS |= {"avx2": ["-march=x86-64-v3"], "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}


class PlainLibraries(build_ext):
    """Name libraries without the version of Python that built them."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the path of a library in the package."""
        return f"{fullname.replace('.', '/')}.so"


class AnyPython(bdist_wheel):
    """Tag the wheel for its platform and every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of Python, ABI and platform."""
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"build_ext": PlainLibraries, "bdist_wheel": AnyPython},
    ext_modules=[
        Extension(
            f"foveate.kernels.cpu._{library}",
            sources=list(map(str, KERNELS)),
            depends=list(map(str, HEADERS)),
            extra_compile_args=[*FLAGS, *flags, f'-DFOVEATE_SOURCES="{DIGEST}"'],
            extra_link_args=["-fopenmp"],
            optional=True,
        )
        for library, flags in INSTRUCTION_SETS.items()
    ],
)
