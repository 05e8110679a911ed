"""The extension modules of `_uring`; everything else is in pyproject.toml.

RANGEIO_NO_EXT=1            build without them: backend ``python`` only
RANGEIO_REQUIRE_EXT=1       fail where they do not compile, instead of going on without (`make` sets it)
RANGEIO_DEBUG=1             -O0 -g, assertions and leak counters on (macro and C code: RANGEIO_DEBUG)
RANGEIO_SANITIZE=address    with AddressSanitizer (run under LD_PRELOAD of libasan, see `make asan`)
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

DEBUG = os.environ.get("RANGEIO_DEBUG", "") not in ("", "0")
SANITIZE = os.environ.get("RANGEIO_SANITIZE", "")
REQUIRED = os.environ.get("RANGEIO_REQUIRE_EXT", "") not in ("", "0")
ABSENT = os.environ.get("RANGEIO_NO_EXT", "") not in ("", "0") or not sys.platform.startswith("linux")
VARIANT = "-".join(filter(None, ["debug" if DEBUG else "release", SANITIZE]))
SOURCES = Path("src/_uring")


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
            optional=not REQUIRED,
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


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


setup(ext_modules=extensions(), options={"build_ext": {"parallel": cores()}})
