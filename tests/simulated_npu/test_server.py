"""The server's own tests, passed once more with the model on the simulated NPU."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from simulated_npu import environment

TESTS = Path(__file__).parent.parent / "server"
FILES = (
    "test_server_transcriptions.py",
    "test_server_chat.py",
    "test_server_streams.py",
    "realtime/test_realtime.py",
    "test_server_load.py",
    "test_server_state.py",
)
# Tests of a server in a process of its own, which runs on the CPU; and of requests alone, which no device sees.
LEFT_OUT = "sigterm or each_request or no_effect or goes_by or only_names"
LEAST = 100  # tests


def test_the_server_passes_its_tests_on_an_npu(tmp_path: Path) -> None:
    options = ["-q", "-k", f"not ({LEFT_OUT})", "-p", "no:cacheprovider", f"--junitxml={tmp_path / 'report.xml'}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--basetemp={tmp_path / 'tests'}", *FILES],
        cwd=TESTS,
        env=environment(TESTED_DEVICE="npu:0", OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (suite,) = ElementTree.parse(tmp_path / "report.xml").iter("testsuite")
    assert int(suite.attrib["tests"]) - int(suite.attrib["skipped"]) > LEAST
