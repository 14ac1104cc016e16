"""Builds the one compiled part, `cext`; everything else about the distribution is in pyproject.toml.

No -march and no per-file flags: the same command builds on every machine, and the code path is chosen at run time. The digests of
what was built are written beside it; `cext` compares them before it loads the extension.
"""

import runpy
from glob import glob
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

# not imported: the package cannot be, as long as its extension is not built
integrity = runpy.run_path("cext/integrity.py")


class BuildWithRecord(build_ext):
    """Records what was built, where it was put."""

    def run(self) -> None:
        super().run()
        for extension in self.extensions:
            path = Path(self.get_ext_fullpath(extension.name))
            path.with_name(path.name + integrity["RECORD_SUFFIX"]).write_bytes(integrity["digests"](path))

    def get_outputs(self) -> list[str]:
        outputs = super().get_outputs()
        return [*outputs, *(path + integrity["RECORD_SUFFIX"] for path in outputs if path.endswith(".so"))]


setup(
    cmdclass={"build_ext": BuildWithRecord},
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
                depends=sorted([*glob("cext/src/*.h"), *glob("cext/*.pxi")]),
                extra_compile_args=["-O3", "-g0", "-std=c11", "-Wall", "-Wextra"],
            )
        ],
        build_dir="build",
        language_level=3,
    ),
)
