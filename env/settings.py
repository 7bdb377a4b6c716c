"""Every setting of the kit, in one class. `env.sources` finds the values, `env.groups` has them by subject."""

from pydantic import PrivateAttr
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import PydanticBaseSettingsSource as Source

from env.field import PREFIX
from env.groups.access import AccessSettings
from env.groups.container import ContainerSettings, NativeSettings
from env.groups.model import DEMO, EngineName, ModelSettings, WeightsSettings
from env.groups.server import ObservingSettings, ServerSettings
from env.groups.vllm import VllmSettings

__all__ = ["DEMO", "Settings"]


class Settings(
    NativeSettings,
    ContainerSettings,
    WeightsSettings,
    ObservingSettings,
    AccessSettings,
    ServerSettings,
    VllmSettings,
    ModelSettings,
):
    """What an operator can set, as `load_settings` found it. Relative paths start at the project's root."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings hands it over by name
        init_settings: Source,
        *_others: Source,
        **_named: Source,
    ) -> tuple[Source, ...]:
        """Only what `load_settings` hands over: it reads the sources, to be able to say where each value came from."""
        return (init_settings,)

    @property
    def engine_name(self) -> EngineName:
        """The engine that decodes: ASR_ENGINE, or the stack's."""
        return self.engine or ("vllm" if self.stack == "vllm" else "transformers")

    @property
    def spool_most_mib(self) -> int:
        """Most that uploads and fetched files take on disk together: ASR_SPOOL_MAX_MIB, or room for three of the
        largest; one that comes as JSON is there twice, in base64 and decoded."""
        return self.spool_max_mib or 3 * max(self.upload_max_mib, self.url_max_mib)

    def origin(self, name: str) -> str:
        """Where field `name` has its value from: `environment`, with the variable if not ASR_…, a file or `default`."""
        return self._origins.get(name, "default")
