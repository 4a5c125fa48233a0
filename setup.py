"""Build of the compiled CPU kernels: one shared library for every Python, optional, against the installed torch.

The kernels are compiled once for each instruction set, in parallel; which one runs is decided when they are called.
Without a compiler, or without torch at build time, the package installs and works on its portable backend.
"""

import importlib.util
import os
import platform
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = Path("src/acmix/ops/cpu/csrc")
FLAGS = ["-std=c++20", "-O2", "-ftree-vectorize", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"]
FLAGS += ["-iquote", str(SOURCES)]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
AMX = [*AVX512, "-mamx-tile", "-mamx-bf16"]
# The oldest torch whose stable ABI the library asks for: 2.11.
TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"


def torch_folder() -> Path:
    """Where torch is installed: for this interpreter, whether or not the build is isolated from its packages."""
    spec = importlib.util.find_spec("torch")
    folder = Path(spec.origin).parent if spec and spec.origin else Path(sysconfig.get_path("purelib"), "torch")
    if not (folder / "include").is_dir():
        raise RuntimeError("torch was not found; install torch first, then acmix with --no-build-isolation")
    return folder


def instruction_sets() -> dict[str, list[str]]:
    """Flags of every build of kernels.cpp on this machine's architecture."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return {"baseline": [], "avx2": AVX2, "avx512": AVX512, "amx": AMX}
    return {"baseline": []}


class BuildKernels(build_ext):
    """Compile the kernels with the C++ compiler in CXX and link them; without success, warn and go on."""

    def get_ext_filename(self, ext_name: str) -> str:
        """The library holds no Python symbols: no interpreter tag in its name."""
        return str(Path(*ext_name.split(".")).with_suffix(".so"))

    def build_extension(self, ext: Extension) -> None:
        """Build the one library."""
        try:
            self._build(Path(self.get_ext_fullpath(ext.name)), Path(self.build_temp))
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            if os.environ.get("ACMIX_REQUIRE_KERNELS"):
                raise
            print(f"acmix: the compiled CPU kernels were not built: {error}", file=sys.stderr)  # noqa: T201

    def copy_extensions_to_source(self) -> None:
        """An editable install takes the library along, if there is one."""
        if all(Path(self.build_lib, self.get_ext_filename(ext.name)).exists() for ext in self.extensions):
            super().copy_extensions_to_source()

    def _build(self, library: Path, objects: Path) -> None:
        compiler = os.environ.get("CXX", "g++")
        extra = os.environ.get("CXXFLAGS", "").split()
        torch = torch_folder()
        objects.mkdir(parents=True, exist_ok=True)
        library.parent.mkdir(parents=True, exist_ok=True)
        units = {
            f"kernels_{name}": ["kernels.cpp", f"-DACMIX_ISA={name}", *flags]
            for name, flags in instruction_sets().items()
        }
        units["operators"] = ["operators/operators.cpp", TORCH_TARGET, "-isystem", str(torch / "include")]
        units |= {name: [f"{name}.cpp"] for name in ("dispatch", "workspace")}

        def compile_unit(name: str) -> str:
            source, *flags = units[name]
            output = str(objects / f"{name}.o")
            command = [compiler, *FLAGS, *flags, *extra, "-c", str(SOURCES / source), "-o", output]
            subprocess.run(command, check=True)  # noqa: S603
            return output

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = list(pool.map(compile_unit, units))
        link = [
            compiler,
            "-shared",
            *extra,
            *compiled,
            f"-L{torch / 'lib'}",
            "-ltorch_cpu",
            "-lc10",
            "-o",
            str(library),
        ]
        subprocess.run(link, check=True)  # noqa: S603


setup(
    ext_modules=[Extension("acmix.ops.cpu._stage2", [], optional=True)],
    cmdclass={"build_ext": BuildKernels},
)
