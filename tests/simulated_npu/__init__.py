"""Where tests meet the simulated NPU: in a process of its own, so that every other test runs on a machine without one.

A process that has imported the stand-in for torch_npu stays a machine with an NPU: transformers and accelerate look
once and choose other code paths for CPU tensors too, and the kit's `auto` picks the NPU. Hence one child process serves
all tests marked `@on_npu`, one after another; and `environment()` serves tests that start a Python of their own, such
as those of failures at import, which happen once in a process.
"""

import functools
import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec

P = ParamSpec("P")

STAND_IN = Path(__file__).parent  # the directory that holds torch_npu


def on_npu(test: Callable[P, None]) -> Callable[P, None]:
    """Decorate a test function (module level, picklable arguments) to run where torch_npu is the stand-in.

    What it raises reaches pytest with the child's traceback.
    """

    @functools.wraps(test)
    def in_child(*args: P.args, **kwargs: P.kwargs) -> None:
        _child().submit(_call, test.__module__, test.__qualname__, args, kwargs).result()

    return in_child


def environment(failure: str | None = None, **variables: str) -> dict[str, str]:
    """Variables for a new Python process in which `import torch_npu` finds the stand-in, acting out `failure` if given
    (torch_npu.failures.NAMES), with `variables` added."""
    path = os.pathsep.join([str(STAND_IN), *filter(None, [os.environ.get("PYTHONPATH")])])
    chosen = {"SIMULATED_NPU_FAILURE": failure} if failure else {}
    return {**os.environ, "PYTHONPATH": path, **chosen, **variables}


def stand_in() -> Any:
    """The stand-in for torch_npu, within a test that is marked `@on_npu`; elsewhere ModuleNotFoundError."""
    return importlib.import_module("torch_npu")


@functools.cache
def _child() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _serve)


def _serve() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # tests calculate next to nothing: threads would cost more than they give
    sys.path.insert(0, str(STAND_IN))
    stand_in()


def _call(module: str, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    getattr(importlib.import_module(module), name).__wrapped__(*args, **kwargs)
