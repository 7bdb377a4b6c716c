"""uv, which resolves the locks: what goes together, and what the package index's wheels look like."""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from env.stacks import StackError, tomllib

# glibc 2.31 or newer: Debian 11, Ubuntu 20.04, openEuler 22.03. vLLM's wheels ask for it.
PLATFORM = "manylinux_2_31"
UNREACHABLE = "Failed to fetch"  # in uv's words, of what it could not get from the index

Versions = dict[str, str]  # by package


class IndexUnreachableError(StackError):
    """The package index does not answer."""


@dataclass(frozen=True)
class Target:
    """What a lock is for: a Python (`3.11`) on a machine (`aarch64`)."""

    python: str
    machine: str


def resolve(
    wanted: Iterable[str], target: Target, *, dropped: Iterable[str], fixed: Versions, present: Versions
) -> Versions:
    """All that `wanted` takes: `dropped` packages left out, `fixed` versions imposed, `present` ones preferred.

    Raises StackError where uv is missing or finds no solution.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.txt" for name in ("dropped", "fixed", "present")}
        files["dropped"].write_text("\n".join(dropped), encoding="utf-8")
        for name, versions in (("fixed", fixed), ("present", present)):
            files[name].write_text("\n".join(_exactly(versions)), encoding="utf-8")
        _uv(
            wanted,
            target,
            *("--excludes", str(files["dropped"])),
            *("--constraints", str(files["fixed"])),
            *("--output-file", str(files["present"])),  # uv keeps to the versions it finds in there
            *("--no-header", "--no-annotate"),
        )
        return dict(line.split("==") for line in files["present"].read_text(encoding="utf-8").splitlines())


def wheel_hashes(versions: Versions, target: Target) -> dict[str, tuple[str, ...]]:
    """The hashes (`sha256:…`), by package, of those wheels in the package index that the target can use.

    Raises StackError where uv is missing, or one of the packages has no such wheel.
    """
    if not versions:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pylock.toml"
        _uv(_exactly(versions), target, "--no-deps", *("--format", "pylock.toml"), *("--output-file", str(file)))
        packages = tomllib.loads(file.read_text(encoding="utf-8"))["packages"]
    return {
        package["name"]: tuple(sorted(f"sha256:{wheel['hashes']['sha256']}" for wheel in package["wheels"]))
        for package in packages
    }


def _exactly(versions: Versions) -> list[str]:
    return [f"{name}=={version}" for name, version in versions.items()]


def _uv(wanted: Iterable[str], target: Target, *options: str) -> None:
    """Run `uv pip compile` for wheels alone, so that nothing is built on an operator's host."""
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "-"),
        *("--python-version", target.python),
        *("--python-platform", f"{target.machine}-{PLATFORM}"),
        *("--only-binary", ":all:"),
        *("--no-config", "--quiet"),
        *options,
    ]
    result = subprocess.run(
        command, input="\n".join(wanted), capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if UNREACHABLE in result.stderr:
        reason = f"does not answer:\n{result.stderr.strip()}"
        raise IndexUnreachableError("the package index", reason, "set UV_DEFAULT_INDEX to a mirror")
    if result.returncode:
        reason = f"cannot be resolved for Python {target.python} on {target.machine}:\n{result.stderr.strip()}"
        advice = "python env/install.py cpu dev" if "No module named uv" in result.stderr else ""
        raise StackError("env/stacks.toml", reason, advice)
