"""One frozen settings tree, read in `services` and `cli` only; everything below takes plain values.

Invariant: nothing is guessed. An unknown key, in the file or among the `METALLM_*` variables,
fails at start, and secrets come from the environment alone.

Values come from `METALLM_*` variables (nested with `__`, as in `METALLM_ROUTER__BATCH_SIZE`),
then from the TOML file that `METALLM_CONFIG` names, then from the defaults below. Where the
servers are comes from `KAFKA_BOOTSTRAP_SERVERS` and `DATABASE_URL`; `KAFKA_SECURITY_*`,
`KAFKA_SASL_*` and `KAFKA_SSL_*` are passed through to librdkafka (`KAFKA_SASL_PASSWORD` becomes
`sasl.password`).
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Name, Weight
from metallm_stream.variables import PREFIX, check_variables, refusal

KAFKA_PASSED_THROUGH = ("KAFKA_SECURITY_", "KAFKA_SASL_", "KAFKA_SSL_")


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError("must begin with a slash: services run in directories of their own")
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class Section(BaseModel):
    """Base of the tree's branches."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Topics(Section):
    """How topics are named and created; the service never changes topics that exist.

    Without `replication_factor` there are three copies, or as many as there are brokers; without
    `min_insync_replicas` two of three copies must have a record before it counts as written.
    """

    prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    partitions: Annotated[int, Field(ge=1, le=1_000)] = 4
    replication_factor: Annotated[int, Field(ge=1, le=5)] | None = None
    min_insync_replicas: Annotated[int, Field(ge=1, le=5)] | None = None


class Objective(Section):
    """The trade-off of queries that bring none of their own."""

    cost_weight: Weight = 0.1
    latency_weight: Weight = 0.0
    latency_scale_s: Annotated[float, Field(gt=0)] = 10.0


class RouterSettings(Section):
    """`batch_size` queries or `linger_s`, whichever comes first, make one transaction.

    `policy` is made with `policy_parameters`; `floor` is the share of an even draw beside a policy
    of River's, whose learner reads these settings too.
    """

    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 500
    linger_s: Annotated[float, Field(gt=0, le=5)] = 0.02
    recent_ids: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    policy: str = "ridge-elimination"
    policy_parameters: dict[str, JsonValue] = Field(default_factory=dict)
    floor: Annotated[float, Field(ge=1e-4, le=1)] = 0.05
    seed: Annotated[int, Field(ge=0)] | None = None


class WorkerSettings(Section):
    """`concurrency` calls in flight; each arm gets `tries` within `budget_s` seconds."""

    concurrency: Annotated[int, Field(ge=1, le=5_000)] = 64
    commit_interval_s: Annotated[float, Field(gt=0, le=5)] = 0.02
    attempt_timeout_s: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    tries: Annotated[int, Field(ge=1, le=20)] = 3
    budget_s: Annotated[float, Field(gt=0, le=7_200)] = 120.0
    backoff_s: Annotated[float, Field(gt=0, le=60)] = 0.25
    drain_s: Annotated[float, Field(ge=0, le=600)] = 5.0
    share_wait_s: Annotated[float, Field(ge=0, le=600)] = 10.0
    hedge_after_s: Annotated[float, Field(gt=0, le=3_600)] | None = None
    spend_cap_usd: Annotated[float, Field(gt=0)] | None = None
    spend_cap_per: Literal["hour", "day"] = "day"
    circuit_share: Annotated[float, Field(gt=0, le=2)] = 0.5


class LearnerSettings(Section):
    """`batch_size` events or `linger_s` make one PostgreSQL transaction.

    Evidence counts half as much for each `half_life_s` that has passed; None forgets nothing.
    Where `drift` sees an arm's quality move, what was learned of it before counts `drift_factor`.
    With `begins_anew`, an empty database may replace the policy that its topic holds.
    """

    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 3_000
    linger_s: Annotated[float, Field(gt=0, le=5)] = 0.1
    refresh_s: Annotated[float, Field(gt=0, le=3_600)] = 1.0
    retention_days: Annotated[int, Field(ge=1, le=3_650)] = 30
    policies_kept: Annotated[int, Field(ge=1)] = 10_000
    half_life_s: Annotated[float, Field(ge=1, le=1e10)] | None = None
    drift: Literal["adwin", "page-hinkley", "off"] = "adwin"
    drift_factor: Annotated[float, Field(ge=1e-6, lt=1)] = 0.02
    begins_anew: bool = False


class JudgeSettings(Section):
    """A model that judges a `share` of the free-text answers; `provider` turns it on.

    A score counts `weight` of a user's judgement while there is none; with 0 it teaches nothing.
    """

    provider: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    model: Name | None = None
    spend_cap_usd: Annotated[float, Field(gt=0)] | None = None
    spend_cap_per: Literal["hour", "day"] = "day"
    share: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight: Annotated[float, Field(ge=0, le=1)] = 0.25
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 8
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    input_usd_per_mtok: Annotated[float, Field(ge=0, le=1e6)] | None = None
    output_usd_per_mtok: Annotated[float, Field(ge=0, le=1e6)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        needed = (self.provider, self.model, self.spend_cap_usd)
        if any(value is None for value in needed) and any(value is not None for value in needed):
            raise ValueError("provider, model and spend_cap_usd: give all three, or none")
        if (self.input_usd_per_mtok is None) != (self.output_usd_per_mtok is None):
            raise ValueError("input_usd_per_mtok and output_usd_per_mtok: give both, or none")
        return self


class HttpSettings(Section):
    """Where a service tells its health and metrics: nowhere without a `port`; 0 is a free one."""

    host: str = Field("127.0.0.1", min_length=1, max_length=253)
    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    stuck_after_s: Annotated[float, Field(ge=30, le=3_600)] = 150.0


# In keys of records a / ends it.
BudgetName = Annotated[Name, Field(pattern=r"^[^/]+$")]


class BudgetEntry(Section):
    """One budget: USD per query, hour or day, for all traffic or each value of a metadata key."""

    amount_usd: Annotated[float, Field(gt=0)]
    per: Literal["query", "hour", "day"] = "query"
    metadata_key: Name | None = None
    hard: bool = False


class ProviderEntry(Section):
    """One provider: which wire it speaks, where, and which variable or file holds its key."""

    wire: Literal["openai", "anthropic", "bedrock"] = "openai"
    base_url: str | None = None
    region: str | None = None
    api_key_env: str | None = Field(None, pattern=r"^[A-Z_][A-Z0-9_]{0,127}$")
    api_key_file: AbsolutePath | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("api_key_env and api_key_file: give one of them")
        return self


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    slot: str = Field("0", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    state_dir: Path = Field(default_factory=lambda: platformdirs.user_state_path("metallm"))
    encoder: str = "wordllama:128"
    templates_dir: AbsolutePath | None = None
    log_format: Literal["text", "json"] = "text"
    kafka_bootstrap_servers: str | None = None
    kafka_properties: dict[str, SecretStr] = Field(default_factory=dict)
    database_url: SecretStr | None = None
    topics: Topics = Topics()
    objective: Objective = Objective()
    router: RouterSettings = RouterSettings()
    worker: WorkerSettings = WorkerSettings()
    learner: LearnerSettings = LearnerSettings()
    judge: JudgeSettings = JudgeSettings()
    http: HttpSettings = HttpSettings()
    budgets: dict[BudgetName, BudgetEntry] = Field(default_factory=dict)
    providers: dict[str, ProviderEntry] = Field(
        default_factory=lambda: {"openai": ProviderEntry(api_key_env="OPENAI_API_KEY")}
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first: what the file says reaches us as init arguments."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    def bootstrap(self) -> str:
        """Kafka's address; raises `ConfigurationError` when none is set."""
        if not self.kafka_bootstrap_servers:
            raise ConfigurationError(
                "KAFKA_BOOTSTRAP_SERVERS is not set; set it, or run `metallm up` for an embedded "
                "Kafka and source the file it names"
            )
        return self.kafka_bootstrap_servers

    def database(self) -> SecretStr:
        """PostgreSQL's URL; raises `ConfigurationError` when none is set."""
        if self.database_url is None or not self.database_url.get_secret_value():
            raise ConfigurationError(
                "DATABASE_URL is not set; set it, or run `metallm up` for an embedded PostgreSQL "
                "and source the file it names"
            )
        return self.database_url


def load() -> Settings:
    """Read file and environment; raises `ConfigurationError` that names key, value and reason."""
    env = os.environ
    check_variables(Settings, env)
    file = env.get(PREFIX + "CONFIG") or None
    values = _file(file)
    for secret in ("kafka_properties", "database_url"):
        if secret in values:
            raise ConfigurationError(f"{secret}: secrets come from the environment, not the file")
    if "KAFKA_BOOTSTRAP_SERVERS" in env:
        values["kafka_bootstrap_servers"] = env["KAFKA_BOOTSTRAP_SERVERS"]
    if "DATABASE_URL" in env:
        values["database_url"] = env["DATABASE_URL"]
    values["kafka_properties"] = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in env.items()
        if name.startswith(KAFKA_PASSED_THROUGH)
    }
    try:
        return Settings(**values)
    except ValidationError as exc:
        raise ConfigurationError(f"settings: {refusal(exc, Settings, env, file)}") from None
    except SettingsError as exc:  # a variable that is not in capitals
        raise ConfigurationError(f"settings: {exc}: a section is given as JSON") from None


def _file(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    path = Path(name)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"{PREFIX}CONFIG={name}: {exc.strerror}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{PREFIX}CONFIG={name}: is no TOML: {exc}") from exc
