"""Where settings come from, and what is refused at start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from metallm_stream.errors import ConfigurationError
from metallm_stream.route import Budget
from metallm_stream.serve.surroundings import budgets
from metallm_stream.settings import Settings, load

OURS = ("METALLM_", "KAFKA_", "DATABASE_URL")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests set what they need; what the run itself was given does not count."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty settings file that METALLM_CONFIG names."""
    path = tmp_path / "metallm.toml"
    path.write_text("")
    monkeypatch.setenv("METALLM_CONFIG", str(path))
    return path


def refusal() -> str:
    with pytest.raises(ConfigurationError) as refused:
        load()
    return str(refused.value)


def test_without_anything_there_are_defaults() -> None:
    """A service without settings lacks its servers' addresses only."""
    settings = load()
    assert settings.router.policy == "ridge-elimination"
    assert settings.encoder == "wordllama:128"
    assert settings.providers["openai"].api_key_env == "OPENAI_API_KEY"
    assert settings.kafka_properties == {}


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (Settings.bootstrap, "KAFKA_BOOTSTRAP_SERVERS is not set"),
        (Settings.database, "DATABASE_URL is not set"),
    ],
    ids=["kafka", "database"],
)
def test_a_missing_address_is_told_with_the_way_out(ask, said) -> None:
    """Only who needs a server asks for its address."""
    with pytest.raises(ConfigurationError, match=said) as refused:
        ask(load())
    assert "metallm up" in str(refused.value)


def test_the_usual_variables_say_where_the_servers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL, as everywhere else."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@db/metallm")
    settings = load()
    assert settings.bootstrap() == "a:1,b:2"
    assert settings.database() == SecretStr("postgresql://me:secret@db/metallm")


def test_our_own_name_for_an_address_is_stronger(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that two services on one machine can use two clusters."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "usual:9092")
    monkeypatch.setenv("METALLM_KAFKA_BOOTSTRAP_SERVERS", "ours:9092")
    monkeypatch.setenv("METALLM_KAFKA_PROPERTIES", '{"ssl.ca.location": "/etc/ca.pem"}')
    settings = load()
    assert settings.bootstrap() == "ours:9092"
    assert settings.kafka_properties == {"ssl.ca.location": SecretStr("/etc/ca.pem")}


def test_variables_reach_into_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two underscores are one step down; the neighbours keep their defaults."""
    monkeypatch.setenv("METALLM_ROUTER__BATCH_SIZE", "7")
    monkeypatch.setenv("METALLM_SLOT", "west-1")
    monkeypatch.setenv("METALLM_PROVIDERS__LOCAL__BASE_URL", "http://127.0.0.1:8000/v1")
    settings = load()
    assert (settings.router.batch_size, settings.router.linger_s) == (7, 0.02)
    assert settings.slot == "west-1"
    assert settings.providers["local"].base_url == "http://127.0.0.1:8000/v1"


def test_the_file_is_read(file: Path) -> None:
    """A TOML file with the same tree."""
    file.write_text('slot = "east"\n[objective]\ncost_weight = 0.4\n')
    settings = load()
    assert (settings.slot, settings.objective.cost_weight) == ("east", 0.4)


def test_a_directory_of_templates_has_a_whole_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """`metallm up` starts services elsewhere than where it was called."""
    monkeypatch.setenv("METALLM_TEMPLATES_DIR", "prompts")
    assert "METALLM_TEMPLATES_DIR: must begin with a slash" in refusal()
    monkeypatch.setenv("METALLM_TEMPLATES_DIR", "/etc/metallm/prompts")
    assert load().templates_dir == Path("/etc/metallm/prompts")


@pytest.mark.parametrize(
    ("name", "value"), [("API_KEY_ENV", "sk-secret-1"), ("API_KEY_FILE", "sk-secret-1")]
)
def test_a_key_where_its_place_should_be_is_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever confuses the two finds no key in the log."""
    monkeypatch.setenv(f"METALLM_PROVIDERS__X__{name}", value)
    said = refusal()
    assert f"METALLM_PROVIDERS__X__{name}: must be the " in said
    assert value not in said


def test_a_key_is_in_one_place(file: Path) -> None:
    """Of two it would not be clear which one counts."""
    file.write_text('[providers.x]\napi_key_env = "KEY"\napi_key_file = "/run/secrets/key"\n')
    assert "give one of them" in refusal()


def test_the_environment_beats_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key by key: what the variable does not say still comes from the file."""
    file.write_text("[router]\nbatch_size = 10\nlinger_s = 0.5\n")
    monkeypatch.setenv("METALLM_ROUTER__BATCH_SIZE", "20")
    settings = load()
    assert (settings.router.batch_size, settings.router.linger_s) == (20, 0.5)


def test_the_usual_variables_beat_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are the surroundings' to say."""
    file.write_text('kafka_bootstrap_servers = "from-file:9092"\n')
    assert load().bootstrap() == "from-file:9092"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "from-environment:9092")
    assert load().bootstrap() == "from-environment:9092"


@pytest.mark.parametrize(
    "name",
    [
        "METALLM_BATCH_SIZE",
        "METALLM_ROUTR__BATCH_SIZE",
        "METALLM_router__batch_size",
        "METALLM_CONFIG__SLOT",
    ],
)
def test_a_variable_that_nobody_reads_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt name is told at start, with the names there are."""
    monkeypatch.setenv(name, "7")
    said = refusal()
    assert name in said
    assert "METALLM_ROUTER" in said


@pytest.mark.parametrize("service", ["METALLM", "METALLM_ROUTER", "METALLM_WORKER_OPENAI_2"])
def test_what_kubernetes_sets_for_a_service_is_left_alone(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every container gets it, of all Services of its namespace."""
    there = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "9464",
        "SERVICE_PORT_HTTP_METRICS": "9464",
        "PORT": "tcp://10.0.0.1:9464",
        "PORT_9464_TCP": "tcp://10.0.0.1:9464",
        "PORT_9464_TCP_PROTO": "tcp",
        "PORT_9464_TCP_PORT": "9464",
        "PORT_9464_TCP_ADDR": "10.0.0.1",
        "PORT_53_UDP": "udp://[fd00::1]:53",
    }
    for name, value in there.items():
        monkeypatch.setenv(f"{service}_{name}", value)
    assert load() == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METALLM_HTTP_PORT", "9464"),
        ("METALLM_ROUTER_PORT_9464_TCP", "9464"),
        ("METALLM_ROUTER_PORT_TCP", "tcp://10.0.0.1:9464"),
        ("METALLM_ROUTER_PORT_9464_TCP_HOST", "10.0.0.1"),
        ("METALLM_ROUTER_HOST", "10.0.0.1"),
        ("METALLM_ROUTER__SERVICE_HOST", "10.0.0.1"),
        ("METALLM_ROUTERS__SERVICE_HOST", "10.0.0.1"),
    ],
)
def test_what_only_looks_like_kubernetes_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt setting is told as ever."""
    monkeypatch.setenv(name, value)
    assert f"{name}: no such setting" in refusal()


def test_an_unknown_key_below_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also deeper in the tree, with the names there are, and below what has no parts."""
    monkeypatch.setenv("METALLM_OBJECTIVE__COSTWEIGHT", "7")
    assert refusal() == (
        "METALLM_OBJECTIVE__COSTWEIGHT: no such setting; there are METALLM_OBJECTIVE__COST_WEIGHT, "
        "METALLM_OBJECTIVE__LATENCY_SCALE_S, METALLM_OBJECTIVE__LATENCY_WEIGHT"
    )
    monkeypatch.delenv("METALLM_OBJECTIVE__COSTWEIGHT")
    monkeypatch.setenv("METALLM_SLOT__NUMBER", "7")
    assert refusal() == "METALLM_SLOT__NUMBER: no such setting; there are METALLM_SLOT"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch_size = 7\n", "batch_size"),
        ("[router]\nbatchsize = 7\n", "router.batchsize"),
        ("[providers.openai]\napi_key = 1\n", "providers.openai.api_key"),
    ],
)
def test_an_unknown_key_in_the_file_is_refused(file: Path, text: str, said: str) -> None:
    """Nothing in the file is without effect; the names there are stand beside it."""
    file.write_text(text)
    assert f"{said} in {file}: no such setting; there are " in refusal()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('database_url = "postgresql://me:secret@db/metallm"\n', "database_url"),
        ('[kafka_properties]\n"sasl.password" = "secret"\n', "kafka_properties"),
    ],
)
def test_secrets_in_the_file_are_refused(file: Path, text: str, said: str) -> None:
    """They come from the environment, and the refusal does not repeat them."""
    file.write_text(text)
    message = refusal()
    assert said in message
    assert "environment" in message
    assert "secret@" not in message
    assert '"secret"' not in message


def test_a_file_that_is_missing_or_no_toml_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its name and what is wrong with it."""
    path = tmp_path / "gone.toml"
    monkeypatch.setenv("METALLM_CONFIG", str(path))
    assert refusal().endswith(f"METALLM_CONFIG={path}: No such file or directory")
    path.write_text("slot = \n")
    assert "is no TOML" in refusal()
    assert "line 1" in refusal()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("METALLM_ROUTER__BATCH_SIZE", "0", "greater than or equal to 1"),
        ("METALLM_ROUTER__SEED", "-1", "greater than or equal to 0"),
        ("METALLM_ROUTER__BATCH_SIZE", "many", "a valid integer"),
        ("METALLM_OBJECTIVE__COST_WEIGHT", "-1", "greater than or equal to 0"),
        ("METALLM_OBJECTIVE__COST_WEIGHT", "abc", "a valid number"),
        ("METALLM_SLOT", "a b", "match pattern"),
        ("METALLM_TOPICS__PREFIX", "a/b", "match pattern"),
        ("METALLM_LEARNER__RETENTION_DAYS", "0", "greater than or equal to 1"),
        ("METALLM_WORKER__CONCURRENCY", "5001", "less than or equal to 5000"),
        ("METALLM_OBJECTIVE__COST_WEIGHT", "inf", "finite number"),
        ("METALLM_OBJECTIVE__COST_WEIGHT", "1e9", "less than or equal to 1000000"),
        ("METALLM_OBJECTIVE__LATENCY_SCALE_S", "inf", "finite number"),
        ("METALLM_BUDGETS__Team__PER", "week", "'query', 'hour' or 'day'"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_variable(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the variable as it was written, what is allowed, and the value."""
    monkeypatch.setenv(name, value)
    message = refusal()
    assert f"{name}: " in message
    assert f"{said}" in message
    assert f"(got '{value}')" in message


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("METALLM_OBJECTIVE", "abc", "METALLM_OBJECTIVE: must be JSON (got 'abc'); its parts are"),
        ("METALLM_OBJECTIVE", '{"cost_weight": "x"}', "METALLM_OBJECTIVE: cost_weight: Input"),
        ("METALLM_OBJECTIVE", '{"costweight": 1}', "costweight: no such setting; there are cost_w"),
        (
            "METALLM_BUDGETS__A__PER",
            "day",
            "amount_usd (METALLM_BUDGETS__A__AMOUNT_USD): Field req",
        ),
        ("METALLM_JUDGE__MODEL", "m", "METALLM_JUDGE__*: provider, model and spend_cap_usd: give"),
    ],
)
def test_what_a_section_lacks_or_holds_is_told_by_variables(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it comes as JSON, in parts, or not at all."""
    monkeypatch.setenv(name, value)
    assert said in refusal()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METALLM_KAFKA_PROPERTIES", "hunter2"),
        ("METALLM_KAFKA_PROPERTIES", '{"sasl.password": 712345}'),
        ("METALLM_PROVIDERS", "hunter2"),
        ("METALLM_PROVIDERS__X", "hunter2"),
        ("METALLM_PROVIDERS__X", "712345"),
        ("METALLM_PROVIDERS__X__API_KEY", "hunter2"),
        ("METALLM_PROVIDERS__X__HEADERS", "hunter2"),
        ("METALLM_PROVIDERS__X__HEADERS", '{"Authorization": 712345}'),
    ],
)
def test_what_may_be_a_secret_is_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its variable is named."""
    monkeypatch.setenv(name, value)
    message = refusal()
    assert f"{name}: " in message
    assert "hunter2" not in message
    assert "712345" not in message


def test_a_variable_in_small_letters_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read, too, and never ends in a traceback."""
    monkeypatch.setenv("metallm_judge", "sk-anything")
    message = refusal()
    assert "a section is given as JSON" in message
    assert "sk-anything" not in message


def test_kafkas_security_settings_are_passed_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """KAFKA_SASL_PASSWORD becomes sasl.password; other KAFKA_ variables are not ours."""
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("KAFKA_SSL_CA_LOCATION", "/etc/ca.pem")
    monkeypatch.setenv("KAFKA_HEAP_OPTS", "-Xmx1g")
    passed = {name: value.get_secret_value() for name, value in load().kafka_properties.items()}
    assert passed == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.password": "hunter2",
        "ssl.ca.location": "/etc/ca.pem",
    }


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in repr nor in str nor in a dump: settings may be logged."""
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter3@db/metallm")
    settings = load()
    for shown in (repr(settings), str(settings), str(settings.model_dump())):
        assert "hunter" not in shown


def test_settings_cannot_be_changed_while_running() -> None:
    """What was read at start holds to the end."""
    with pytest.raises(ValidationError, match="frozen"):
        load().slot = "other"
    with pytest.raises(ValidationError, match="frozen"):
        load().router.batch_size = 1


def test_variables_of_other_programs_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what begins with METALLM_ is ours; three of those are read elsewhere."""
    monkeypatch.setenv("SLOT", "x")
    monkeypatch.setenv("METALLM_TEST_STACK", "containers")
    monkeypatch.setenv("METALLM_RECORDED_LLM_KEY", "k")
    assert load().slot == "0"


def test_budgets_come_from_variables_and_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As what the pacer takes; a variable's name is in capitals, the budget's in small letters."""
    file.write_text('[budgets.all]\namount_usd = 20\nper = "day"\nhard = true\n')
    monkeypatch.setenv("METALLM_BUDGETS__TEAM__AMOUNT_USD", "0.002")
    monkeypatch.setenv("METALLM_BUDGETS__TEAM__METADATA_KEY", "team")
    found = {budget.name: budget for budget in budgets(load())}
    assert found == {
        "all": Budget("all", 20.0, "day", hard=True),
        "team": Budget("team", 0.002, "query", metadata_key="team"),
    }


@pytest.mark.parametrize(
    "text",
    ["amount_usd = 0", "amount_usd = inf", 'per = "week"', "amount_usd = 1\nper_team = true"],
)
def test_a_budget_that_says_nothing_sensible_is_refused(file: Path, text: str) -> None:
    """Named by its key, before anything is spent."""
    file.write_text(f"[budgets.all]\n{text}\n")
    assert "budgets.all." in refusal()


def test_the_name_of_a_budget_ends_at_a_slash(file: Path) -> None:
    """Or its accounts would be taken for another budget's when they are forgotten."""
    file.write_text('[budgets."team/day"]\namount_usd = 1\n')
    assert "budgets.team/day" in refusal()


def test_an_unknown_wire_is_refused_where_settings_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the setting's name and with the choices, before any topic is looked for."""
    monkeypatch.setenv("METALLM_PROVIDERS__FOO__WIRE", "grpc")
    with pytest.raises(ConfigurationError) as refused:
        load()
    assert "METALLM_PROVIDERS__FOO__WIRE: " in str(refused.value)
    assert "'openai', 'anthropic' or 'bedrock'" in str(refused.value)
