"""What is in the archives that the kit writes."""

import tarfile
from pathlib import Path


def unpacked(archive: Path, folder: Path) -> Path:
    """The bundle's directory, after tar -x."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (inner,) = folder.iterdir()
    return inner


def texts(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}
