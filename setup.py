"""Build of the compiled CPU kernels: one shared library for every Python >= 3.11 and torch >= 2.11, optional.

The kernels are compiled once for each instruction set, in parallel; which one runs is decided when they are called.
Nothing of torch is needed: what they call of it is declared in csrc/operators/libtorch.h and found at load time.
Without a compiler the package installs and works on its portable backend, and says why at first use.
"""

import os
import platform
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = Path("src/acmix/ops/cpu/csrc")
FLAGS = ["-std=c++20", "-O2", "-ftree-vectorize", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"]
FLAGS += ["-iquote", str(SOURCES)]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
AVX512_BF16 = [*AVX512, "-mavx512bf16"]
AMX = [*AVX512, "-mamx-tile", "-mamx-bf16"]
# Beside the library, where it could not be built: why, for people who ask for it.
EXCUSE = "not_built.txt"


def instruction_sets() -> dict[str, list[str]]:
    """Flags of every build of kernels.cpp on this machine's architecture."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return {"baseline": [], "avx2": AVX2, "avx512": AVX512, "avx512_bf16": AVX512_BF16, "amx": AMX}
    return {"baseline": []}


def compiler() -> list[str]:
    """The C++ compiler to use; CXX may begin with what calls it, as in `ccache g++`, and hold options."""
    return shlex.split(os.environ.get("CXX", "")) or ["g++"]


def run(*arguments: str) -> None:
    """Call the compiler; what it writes is shown, and kept for the error."""
    done = subprocess.run([*compiler(), *arguments], stderr=subprocess.PIPE, text=True, errors="replace")  # noqa: S603
    sys.stderr.write(done.stderr)
    done.check_returncode()


def torch_library(folder: Path) -> list[str]:
    """Flags that let the library name torch's as its dependency: of an empty one with the same name."""
    if sys.platform == "darwin":
        return ["-Wl,-undefined,dynamic_lookup"]
    name = "libtorch_cpu.so"
    run("-shared", f"-Wl,-soname,{name}", "-x", "c++", os.devnull, "-o", str(folder / name))
    return ["-Wl,--no-as-needed", str(folder / name), "-Wl,--as-needed"]


class BuildKernels(build_ext):
    """Compile the kernels with the C++ compiler in CXX and link them; without success, leave the reason and go on."""

    def get_ext_filename(self, ext_name: str) -> str:
        """The library holds no Python symbols: no interpreter tag in its name."""
        return str(Path(*ext_name.split(".")).with_suffix(".so"))

    def build_extension(self, ext: Extension) -> None:
        """Build the one library."""
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        excuse = library.with_name(EXCUSE)
        for old in (library, excuse):
            old.unlink(missing_ok=True)
        try:
            self._build(library, Path(self.build_temp))
        except OSError as error:
            self._excuse(excuse, f"the C++ compiler {error.filename or compiler()[0]} cannot be run ({error.strerror})")
        except subprocess.CalledProcessError as error:
            errors = [line for line in error.stderr.splitlines() if "error" in line] or [
                f"it ended with {error.returncode}"
            ]
            self._excuse(excuse, f"{shlex.join(compiler())} failed: {errors[0]}")

    def copy_extensions_to_source(self) -> None:
        """An editable install takes the library along, or the reason why there is none."""
        for ext in self.extensions:
            built = Path(self.build_lib, self.get_ext_filename(ext.name))
            source = Path("src", self.get_ext_filename(ext.name))
            for file, copy in ((built, source), (built.with_name(EXCUSE), source.with_name(EXCUSE))):
                copy.unlink(missing_ok=True)
                if file.exists():
                    self.copy_file(str(file), str(copy))

    def _excuse(self, file: Path, reason: str) -> None:
        if os.environ.get("ACMIX_REQUIRE_KERNELS"):
            raise RuntimeError(f"acmix: the compiled CPU kernels were not built: {reason}")
        print(f"acmix: the compiled CPU kernels were not built: {reason}", file=sys.stderr)  # noqa: T201
        file.write_text(reason, encoding="utf-8")

    def _build(self, library: Path, objects: Path) -> None:
        extra = os.environ.get("CXXFLAGS", "").split()
        objects.mkdir(parents=True, exist_ok=True)
        units = {
            f"kernels_{name}": ["kernels.cpp", f"-DACMIX_ISA={name}", *flags]
            for name, flags in instruction_sets().items()
        }
        units["operators"] = ["operators/operators.cpp"]
        units |= {name: [f"{name}.cpp"] for name in ("dispatch", "workspace", "compatibility")}

        def compile_unit(name: str) -> str:
            source, *flags = units[name]
            output = str(objects / f"{name}.o")
            run(*FLAGS, *flags, *extra, "-c", str(SOURCES / source), "-o", output)
            return output

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = list(pool.map(compile_unit, units))
        last = os.environ.get("LDFLAGS", "").split()
        run("-shared", *extra, *compiled, *torch_library(objects), *last, "-o", str(library))


setup(
    ext_modules=[Extension("acmix.ops.cpu._stage2", [], optional=True)],
    cmdclass={"build_ext": BuildKernels},
)
