"""What tests share: the demo model, loaded once, and its clips."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from benchmarks import small
from engine import Host, cloned
from reference import REFERENCE
from reporting import keep, made
from serving import Served, served
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from env.settings import Settings
from env.sources import PROJECT, load_settings
from runtime.demo import Clip, bundled_clips
from runtime.host import npu_host
from runtime.measure.bench.record import Benchmark
from runtime.measure.report.record import Report
from runtime.transcriber import Transcriber, open_transcriber

ON_THE_IMAGE = {
    *("test_bundle", "test_image", "test_container"),
    *("test_container_upgrade", "test_container_watched", "test_container_year"),
}
# Files that take minutes: they come first, so that at the end no core waits for one of them.
LONG = {*ON_THE_IMAGE, "test_simulated_npu", "test_readme", "test_bench_versus", "test_bench_host_cost"}


class Groups(LoadScopeScheduling):  # type: ignore[misc]  # it brings no types
    """Where tests run side by side, those of a file stay together for what they share, and all that need the image."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "image" if Path(file).stem in ON_THE_IMAGE else file


def pytest_configure() -> None:
    """Heed Ctrl-C, which tests type: what a script runs in its background ignores it, and so does what that starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    npu_host.HOST_ROOT = PROJECT / "tests" / "nowhere"  # so that the demo model is tested on NPU hosts, too,
    os.environ.setdefault("ASR_PROFILE", "cpu")  # and by what tests start


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a third of the time, tests wait for servers, containers and browsers."""
    return (os.cpu_count() or 1) + 1


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    """The scheduler of `make test`."""
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long first."""
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the whole suite leaves out."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        terminalreporter.write_line("tests/vllm did not run: it needs a real vLLM, and minutes → make test-vllm")
        terminalreporter.write_line("tests/clients did not run: they need other people's clients → make test-clients")


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """Opening a device sets variables for torch_npu and CANN: meant for the process, but not for the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def settings() -> Settings:
    """The cpu profile, whatever the environment of the tests says, but for the device that TESTED_DEVICE names."""
    return load_settings({"ASR_DEVICE": os.environ.get("TESTED_DEVICE", "cpu")})


@pytest.fixture(scope="session")
def transcriber(settings: Settings) -> Iterator[Transcriber]:
    """The demo model on the CPU."""
    with open_transcriber(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def measured(settings: Settings) -> Benchmark:
    """A small benchmark of the demo model."""
    return small(settings)


@pytest.fixture(scope="session")
def kept(
    measured: Benchmark, transcriber: Transcriber, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A directory for outputs that holds the records of a small smoke test, benchmark and data set."""
    out = tmp_path_factory.mktemp("kept")
    keep(out, measured, transcriber, clips)
    return out


@pytest.fixture(scope="session")
def report(kept: Path, settings: Settings) -> Report:
    """A report that rests on those records."""
    return made(kept, settings)


@pytest.fixture(scope="module")
def server(transcriber: Transcriber) -> Iterator[Served]:
    """A server around the demo model."""
    with served(transcriber) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    """OpenAI's client for it."""
    with server.client() as connected:
        yield connected


@pytest.fixture(scope="session")
def clips() -> list[Clip]:
    """The bundled clips, speech and silence."""
    return bundled_clips()


@pytest.fixture(scope="session")
def speech(clips: list[Clip]) -> list[Clip]:
    """The bundled clips in which somebody speaks, without hotwords."""
    return [clip for clip in clips if clip.language and not clip.context]


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A clone of the kit whose image stands on a base that needs no registry."""
    return cloned(tmp_path_factory.mktemp("host") / "kit")


@pytest.fixture(scope="session")
def built(host: Host) -> str:
    """What `make build` printed when it built the image."""
    result = host.make("build")
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture
def reference() -> Path:
    """The real model's tokenizer, configurations and clips, which are no part of the project."""
    if not REFERENCE.is_dir():
        pytest.skip(f"the real tokenizer, configurations and clips are not at ../shared/{REFERENCE.name}")
    return REFERENCE
