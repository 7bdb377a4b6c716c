"""The real server on a device that is at fault for so many starts as a file says: `python sick_server.py FILE`."""

import sys
from pathlib import Path
from typing import NoReturn

from invoke.main import program


def main(left: Path) -> None:
    """What `invoke serve` does, each start counted in the file."""
    starts = int(left.read_text(encoding="utf-8"))
    if starts:
        import torch

        def lost(*_: object) -> NoReturn:
            raise RuntimeError("NPU function error: aclrtSynchronizeStream, error code is 507015")

        left.write_text(str(starts - 1), encoding="utf-8")
        torch.nn.Linear.forward = lost  # type: ignore[method-assign,assignment]
    program.run(["invoke", "serve"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
