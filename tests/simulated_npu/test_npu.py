"""torch.npu on the simulated device, what it saw at import, and how it fails there and at first use."""

import json
import subprocess
import sys

import pytest
import torch

from simulated_npu import STAND_IN, environment, on_npu, stand_in


def in_new_python(code: str, failure: str | None = None, **variables: str) -> str:
    """What `code` prints in a Python process of its own that finds the stand-in."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment(failure, **variables)
    ).stdout.strip()


@on_npu
def fails_in_child() -> None:
    raise LookupError("in the child")


def test_child_hands_its_errors_over() -> None:
    with pytest.raises(LookupError, match="in the child"):
        fails_in_child()


def test_this_process_stays_without_the_stand_in() -> None:
    assert str(STAND_IN) not in sys.path
    assert "simulated" not in getattr(sys.modules.get("torch_npu"), "__version__", "")


@on_npu
def test_device_functions() -> None:
    npu = stand_in().npu
    assert torch.npu is npu  # type: ignore[attr-defined]
    assert npu.is_available()
    assert npu.device_count() == 1
    npu.set_device("npu:0")
    assert npu.current_device() == 0
    assert npu.is_initialized()
    assert "simulated" in npu.get_device_name(0)
    assert npu.get_device_properties("npu:0").total_memory == npu.mem_get_info(0)[1]
    npu.set_compile_mode(jit_compile=False)
    npu.set_option({"ACL_OP_COMPILER_CACHE_MODE": "enable"})
    assert stand_in().simulation.settings() == {"jit_compile": False, "ACL_OP_COMPILER_CACHE_MODE": "enable"}
    with pytest.raises(TypeError, match="npu option must be a dict"):
        npu.set_option("ACL_OP_COMPILER_CACHE_MODE")
    with torch.random.fork_rng():
        torch.manual_seed(1)


def test_environment_is_what_torch_npu_saw_at_import() -> None:
    code = (
        "import os, torch_npu; os.environ['CPU_AFFINITY_CONF'] = 'late';"
        "from torch_npu import simulation; import json; print(json.dumps(simulation.ENVIRONMENT))"
    )
    seen = json.loads(in_new_python(code, TASK_QUEUE_ENABLE="2", PYTORCH_NPU_ALLOC_CONF="expandable_segments:True"))
    assert seen["TASK_QUEUE_ENABLE"] == "2"
    assert seen["PYTORCH_NPU_ALLOC_CONF"] == "expandable_segments:True"
    assert seen.get("CPU_AFFINITY_CONF") != "late"


@pytest.mark.parametrize(
    ("failure", "error", "words"),
    [
        ("cann", "ImportError", "libhccl.so: cannot open shared object file: No such file or directory"),
        ("driver", "ImportError", "libascend_hal.so: cannot open shared object file: No such file or directory"),
        ("cuda", "RuntimeError", "Two accelerators cannot be used at the same time in PyTorch: npu and cuda"),
        ("nonsense", "ValueError", "SIMULATED_NPU_FAILURE=nonsense: expected one of cann, driver, cuda, busy"),
    ],
)
def test_import_fails(failure: str, error: str, words: str) -> None:
    code = "try: import torch_npu\nexcept Exception as error: print(type(error).__name__, error)"
    assert in_new_python(code, failure).startswith(f"{error} {words}")


@pytest.mark.parametrize(
    ("failure", "count", "code", "words"),
    [("busy", 1, "507899", "The resources are busy"), ("none-visible", 0, "207004", "The device is unavailable")],
)
def test_first_use_fails(failure: str, count: int, code: str, words: str) -> None:
    script = (
        "import torch, torch_npu\n"
        "print(torch.npu.device_count(), torch.npu.is_available())\n"
        "uses = (lambda: torch.npu.set_device(0), lambda: torch.zeros(1, device='npu:0'), torch.npu.mem_get_info)\n"
        "for use in uses:\n"
        "    try: use()\n"
        "    except RuntimeError as error: print(' '.join(str(error).split()))"
    )
    seen, *errors = in_new_python(script, failure).splitlines()
    assert seen == f"{count} {bool(count)}"
    assert len(errors) == 3
    assert all(f"error code is {code}" in error and words in error for error in errors)
