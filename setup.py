"""Builds the one compiled part, `cext`; everything else about the distribution is in pyproject.toml.

No -march and no per-file flags: the same command builds on every machine, and the code path is chosen at run time.
"""

from glob import glob

import numpy
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

setup(
    # proto/ is a source root, not a package: the wire contract is imported as citycard.v1
    packages=[*find_packages(include=["engine", "engine.*", "keys", "keys.*", "cext", "cext.*"]), "citycard", "citycard.v1"],
    package_dir={"citycard": "proto/citycard"},
    ext_modules=cythonize(
        [
            Extension(
                "cext._kernels",
                ["cext/_kernels.pyx", *sorted(glob("cext/src/*.c"))],
                include_dirs=["cext/src", numpy.get_include()],
                define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
                depends=sorted(glob("cext/src/*.h")),
                extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra"],
            )
        ],
        build_dir="build",
        language_level=3,
    ),
)
