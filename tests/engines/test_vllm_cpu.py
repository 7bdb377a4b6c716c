"""What makes .vllm: the stand-ins for libraries that nobody calls."""

import ctypes
import shutil
from pathlib import Path

import pytest
import vllm_stand_ins as stand_ins

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="make test-vllm needs gcc, make test does not")


@needs_gcc
def test_a_stand_in_has_each_function_in_its_version(tmp_path: Path) -> None:
    path = tmp_path / "libcunothing.so.1"
    stand_ins.build(path, {"": {"cuPlain"}, "libcunothing.so.1": {"cuFirst", "cuSecond"}, "OTHER": {"cuThird"}})
    assert {symbol for kind, symbol in stand_ins.symbols(path) if kind == "T"} == {
        "cuPlain",
        "cuFirst@@libcunothing.so.1",
        "cuSecond@@libcunothing.so.1",
        "cuThird@@OTHER",
    }
    assert ctypes.CDLL(str(path)).cuFirst


@needs_gcc
def test_what_a_library_wants_is_found_by_where_and_in_which_version_it_wants_it(tmp_path: Path) -> None:
    beneath, above = tmp_path / "libcubeneath.so.1", tmp_path / "libtop.so"
    stand_ins.build(beneath, {"V1": {"cuOne"}, "V2": {"cuTwo"}})
    source = tmp_path / "top.c"
    names = ("cuOne", "cuTwo", "ncclFree")
    declared = "".join(f"void {name}(void); " for name in names)
    source.write_text(f"{declared}void top(void) {{ {''.join(f'{name}(); ' for name in names)} }}")
    stand_ins.ask("gcc", "-shared", "-fPIC", "-o", above, source, beneath)
    wanted = stand_ins.wanted([above], {beneath.name})
    assert wanted == {beneath.name: {"V1": {"cuOne"}, "V2": {"cuTwo"}, "": {"ncclFree"}}}


def test_a_tool_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit, match="gcc is missing → apt-get install gcc binutils"):
        stand_ins.ask("gcc", "--version")
