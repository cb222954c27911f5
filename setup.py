"""Compiles the CPU kernels, one library for each instruction set; what cannot be compiled is left out.

The libraries hold plain C functions (foveate.kernels.cpu loads them with ctypes) and need no headers of PyTorch or
Python. Everything else about the package is in pyproject.toml.
"""

import platform

from setuptools import Extension, setup

SOURCES = "src/foveate/kernels/cpu"
FLAGS = ["-std=c++17", "-O3", "-fopenmp", "-fvisibility=default", "-Wno-psabi"]
INSTRUCTION_SETS = {"any": []}
if platform.machine() in ("x86_64", "AMD64"):
    INSTRUCTION_SETS |= {"avx2": ["-march=x86-64-v3"], "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}

setup(
    ext_modules=[
        Extension(
            f"foveate.kernels.cpu._{library}",
            sources=[f"{SOURCES}/{name}.cpp" for name in ("axial", "content", "global_self")],
            depends=[
                f"{SOURCES}/{name}.h"
                for name in ("content", "exponential", "lanes", "lanes_backward", "lines", "products")
            ],
            extra_compile_args=[*FLAGS, *flags],
            extra_link_args=["-fopenmp"],
            optional=True,
        )
        for library, flags in INSTRUCTION_SETS.items()
    ]
)
