"""What an installed package puts on Python's path, and whether it can be imported."""

import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import all_suffixes
from pathlib import Path

pass
import os
import sys
from pathlib import Path

from env.loading import PROJECT

PROJECT = Path(__file__).resolve().parent.parent
END = "all imported"

# Each name is told before it is imported, so that the last one told is the one that failed. qwen_asr is imported as the
# kit does it: its own __init__ would ask for packages that are left out.
IMPORT = f"""
import importlib, sys
for name in sys.argv[1:]:
    print(name, flush=True)
    if name == "qwen_asr":
        importlib.import_module("runtime.checkpoint").backend()
    else:
        importlib.import_module(name)
print("{END}")
"""


def modules_of(package: str) -> list[str]:
    """The public modules of an installed package, such as `attr` and `attrs`.

    The files tell, down to the first package in a namespace (`google.protobuf`); where they are elsewhere, as in an
    editable installation, top_level.txt does.
    """
    distribution = importlib.metadata.distribution(package)
    found = set()
    for file in distribution.files or ():
        *folders, name = file.parts
        stem = name.split(".")[0]
        if name == "__init__.py":
            found.add(".".join(folders))
        elif not folders and any(name == stem + suffix for suffix in all_suffixes()):
            found.add(stem)
    outer = {name for name in found if not any(name.startswith(f"{other}.") for other in found)}
    top_level = (distribution.read_text("top_level.txt") or "").split()
    return sorted(filter(_is_public, outer)) or sorted(filter(_is_public, top_level))


def failed_imports(modules: list[str]) -> Iterator[tuple[str, str]]:
    """Import the modules in that order; yields each that fails, with the last line of its error.

    In a process of its own, since a library may end the process that loads it; in one for all, until one fails.
    """
    environment = {**os.environ, AUTOLOAD: "0"}
    while modules:
        result = subprocess.run(
            [sys.executable, "-c", IMPORT, *modules],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        told = [line for line in result.stdout.splitlines() if line in (*modules, END)]
        if told[-1:] == [END]:
            return
        last = told[-1] if told else modules[0]
        yield last, _reason(result)
        modules = modules[modules.index(last) + 1 :]


def _reason(result: "subprocess.CompletedProcess[str]") -> str:
    if result.returncode < 0:
        return f"ended Python by {signal.Signals(-result.returncode).name}"
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"ended Python with exit code {result.returncode}"


def _is_public(module: str) -> bool:
    parts = module.split(".")
    return parts[0] not in ("test", "tests") and all(part.isidentifier() and part[0] != "_" for part in parts)


# torch_npu registers itself as soon as torch is imported, and brings torch down with it where CANN is missing. The kit
# imports it by hand, to say what is wrong.
AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
