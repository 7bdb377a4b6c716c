"""Signatures by SSH keys, which docker/install.sh verifies: every host has ssh-keygen, few have anything else."""

import shutil
import subprocess
from pathlib import Path

from env.errors import KitError
from env.field import variable

NAMESPACE = "qwen3-asr-bundle"  # so that a signature for something else is none for a bundle
VARIABLE = variable("bundle_key")


def check(key: Path) -> None:
    """Raises KitError where nothing could be signed with a key, for as much as can be told without its passphrase."""
    if not shutil.which("ssh-keygen"):
        raise KitError("ssh-keygen", "is not installed", "install your distribution's openssh-client package")
    if not key.is_file():
        raise KitError(VARIABLE, f"{key} is no file", "correct it, or unset it; ssh-keygen -t ed25519 makes a key")
    result = _ssh_keygen("-l", "-f", str(key))
    if result.returncode:
        raise KitError(VARIABLE, f"{key}: {_words(result)}", "name an SSH key: ssh-keygen -t ed25519 makes one")


def sign(key: Path, path: Path) -> None:
    """Write the signature of a file beside it, `<name>.sig`. A passphrase is asked for on the terminal.

    Raises KitError where it cannot be signed.
    """
    result = _ssh_keygen("-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(path))
    if result.returncode:
        advice = "ssh-add it where its passphrase cannot be typed"
        raise KitError(VARIABLE, f"{key} does not sign: {_words(result)}", advice)


def _ssh_keygen(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["ssh-keygen", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _words(result: "subprocess.CompletedProcess[str]") -> str:
    return (result.stderr or result.stdout).strip().replace("\r", "").replace("\n", "; ")
