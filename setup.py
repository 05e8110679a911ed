"""The extension modules of `_uring`, and where pyuring is asked for; everything else is in pyproject.toml.

RANGEIO_NO_EXT=1            build without them: backend ``python`` only
RANGEIO_REQUIRE_EXT=1       fail where they do not compile, instead of going on without (`make` sets it)
RANGEIO_DEBUG=1             -O0 -g, assertions and leak counters on (macro and C code: RANGEIO_DEBUG)
RANGEIO_SANITIZE=address    with AddressSanitizer (run under LD_PRELOAD of libasan, see `make asan`)
"""

import os
import sys
from pathlib import Path

from packaging.tags import sys_tags
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

DEBUG = os.environ.get("RANGEIO_DEBUG", "") not in ("", "0")
SANITIZE = os.environ.get("RANGEIO_SANITIZE", "")
REQUIRED = os.environ.get("RANGEIO_REQUIRE_EXT", "") not in ("", "0")
BUILDABLE = sys.platform.startswith("linux") and sys.implementation.name == "cpython"
ABSENT = os.environ.get("RANGEIO_NO_EXT", "") not in ("", "0") or not BUILDABLE
VARIANT = "-".join(filter(None, ["debug" if DEBUG else "release", SANITIZE]))
SOURCES = Path("src/_uring")

# Only its shared library is used (liburing, see docs/architecture.md). 0.3.0 has wheels for these and no sdist; later
# releases are sdists that do not build. Elsewhere the system's liburing.so.2 serves, or the pread pool.
PYURING = "pyuring==0.3.0"
PYURING_WHEELS = {f"cp3{minor}-cp3{minor}-manylinux_2_17_x86_64" for minor in range(10, 14)}
PYURING_MARKER = (
    "platform_system == 'Linux' and platform_machine == 'x86_64' and implementation_name == 'cpython'"
    " and python_version < '3.14'"
)


# `make wheels` compiles one for the wheel, into a copy of the sources.
OWN_LIBURING = (SOURCES / "liburing.so.2").exists()


def requirements() -> list[str]:
    """pyuring only where it has a wheel, or nothing could be installed, and where we bring no copy of liburing.

    No marker tells musl from glibc, a free-threaded CPython from another, or a 32-bit one on a 64-bit kernel (PEP 508).
    The tags do: a wheel of ours has those of the Python that builds it. The marker is for lock files, which are made
    on one machine for others.
    """
    has_wheel = not OWN_LIBURING and any(str(tag) in PYURING_WHEELS for tag in sys_tags())
    return ["numpy>=1.24", *([f"{PYURING} ; {PYURING_MARKER}"] if has_wheel else [])]


def flag_record() -> str:
    """A file that changes whenever the flags do: as a dependency of each module it forces the rebuild."""
    record = Path("build/variant")
    if not record.exists() or record.read_text() != VARIANT:
        record.parent.mkdir(exist_ok=True)
        record.write_text(VARIANT)
    return str(record)


def extensions() -> list[Extension]:
    if ABSENT:
        return []
    from Cython.Build import cythonize

    compile_args = ["-O0", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-g1"]
    sanitize = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"] if SANITIZE else []
    macros = [("RANGEIO_DEBUG", "1")] if DEBUG else [("CYTHON_WITHOUT_ASSERTIONS", "1")]
    headers = [str(path) for kind in ("*.pxd", "*.h") for path in sorted(SOURCES.glob(kind))]
    modules = [
        Extension(
            f"_uring.{path.stem}",
            [str(path)],
            include_dirs=[str(SOURCES)],
            depends=[*headers, flag_record()],
            define_macros=macros,
            extra_compile_args=[*compile_args, *sanitize, "-pthread", "-fvisibility=hidden"],
            extra_link_args=[*sanitize, "-pthread"],
        )
        for path in sorted([*SOURCES.glob("*.pyx"), SOURCES / "cursor.py"])
    ]
    checks = {"boundscheck": DEBUG, "wraparound": False, "initializedcheck": DEBUG, "cdivision": True}
    signatures = {"embedsignature": True, "embedsignature.format": "clinic", "binding": False}
    return cythonize(
        modules,
        build_dir=f"build/cython-{VARIANT}",
        include_path=["src"],
        compiler_directives={"language_level": 3, **checks, **signatures},
    )


class AllOrNone(build_ext):
    """Where a module cannot be compiled there are none: those that could be would not import without it.

    `Extension(optional=True)` is each on its own, and lost by cythonize().
    """

    def run(self) -> None:
        in_place = self.inplace
        try:
            super().run()
        except (BaseError, CCompilerError) as error:
            if REQUIRED:
                raise
            self.warn(f"rangeio is installed without its compiled core, and reads by pure Python: {error}")
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.inplace, self.extensions = in_place, []


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": AllOrNone},
    install_requires=requirements(),
    options={"build_ext": {"parallel": cores()}},
)
