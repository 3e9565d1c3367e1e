"""Settings come from flags, the environment, files and portoser.toml, and say all that is wrong at once."""

from pathlib import Path

import pytest

from portoser.settings import Sandbox, Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import os

    for name in list(os.environ):
        if name.startswith("PORTOSER_") or name in {"DATABASE_URL", "DATABASE_URL_FILE", "LOG_LEVEL"}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tools.d").mkdir()
    return tmp_path


def problems(**flags: object) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_settings(**flags)
    return caught.value.problems


def test_without_anything_the_defaults_are_those_of_a_laptop(home: Path) -> None:
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.tools == home / "tools.d"
    assert settings.data_path == home / ".portoser"
    assert settings.sandbox is Sandbox.STRICT
    assert settings.database_url is None
    assert not settings.auth_enabled
    assert settings.workers >= 4


def test_a_flag_beats_a_variable_which_beats_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "portoser.toml").write_text('port = 1001\nhost = "localhost"\ngroups = ["a", "b"]\nlog_level = "debug"\n')
    assert load_settings().port == 1001
    monkeypatch.setenv("PORTOSER_PORT", "1002")
    settings = load_settings()
    assert (settings.port, settings.host, settings.groups) == (1002, "localhost", ("a", "b"))
    assert settings.log_level == "debug"
    assert load_settings(port="1003", host=None).port == 1003


def test_lists_are_separated_by_commas_and_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTOSER_ADMIN_GROUPS", "ops, platform")
    monkeypatch.setenv("PORTOSER_TRUSTED_PROXIES", "10.0.0.0/8,::1")
    monkeypatch.setenv("PORTOSER_TOKENS", "")
    settings = load_settings()
    assert settings.admin_groups == ("ops", "platform")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")
    assert not settings.auth_enabled


def test_the_database_url_may_stand_in_a_file_and_is_never_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = home / "dsn"
    secret.write_text("postgresql://me:hunter2@db/x\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(secret))
    settings = load_settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://me:hunter2@db/x"
    assert "hunter2" not in repr(settings)

    monkeypatch.setenv("DATABASE_URL", "postgresql://other")
    assert problems() == ("DATABASE_URL and DATABASE_URL_FILE are both set: set one.",)


def test_the_url_of_the_migrations_is_for_a_database_of_ones_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = home / "dsn"
    secret.write_text("postgresql://owner:hunter2@db/x\n")
    monkeypatch.setenv("PORTOSER_MIGRATIONS_URL_FILE", str(secret))
    assert problems() == (
        "PORTOSER_MIGRATIONS_URL is set and DATABASE_URL is not: set both, or neither for the embedded Postgres.",
    )
    monkeypatch.setenv("DATABASE_URL", "postgresql://server@db/x")
    settings = load_settings()
    assert settings.migrations_url is not None
    assert settings.migrations_url.get_secret_value() == "postgresql://owner:hunter2@db/x"
    assert "hunter2" not in repr(settings)


def test_everything_that_is_wrong_is_said_at_once_each_in_a_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "portoser.toml").write_text('prot = 1\ntools = "nowhere"\n')
    monkeypatch.setenv("PORTOSER_SANDBOX", "loose")
    monkeypatch.setenv("PORTOSER_TOKNES", "tokens.yml")
    monkeypatch.setenv("DATABASE_URL", "mysql://x")
    said = problems(port="99999", trusted_proxies="everyone")
    assert len(said) == 7
    text = "\n".join(said)
    assert "PORTOSER_TOOLS: there is no directory 'nowhere'" in text
    assert "there is no setting 'prot'; did you mean 'port'?" in text
    assert "PORTOSER_SANDBOX: choose 'strict' or 'off'." in text
    assert "did you mean PORTOSER_TOKENS?" in text
    assert "DATABASE_URL: this is not a Postgres URL" in text
    assert "--port: 99999 is not a port" in text
    assert "--trusted-proxies: 'everyone' is not an address" in text
    assert all(line.endswith((".", "?")) for line in said)


def test_a_wrong_database_url_does_not_show_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://me:hunter2@db/x")
    assert "hunter2" not in "".join(problems())


@pytest.mark.parametrize(
    ("content", "said"),
    [("port = ", "portoser.toml: this is not TOML"), ("[sources]\n", "there is no setting 'sources'")],
)
def test_a_broken_file_is_a_sentence(home: Path, content: str, said: str) -> None:
    (home / "portoser.toml").write_text(content)
    assert said in problems()[0]


def test_auth_off_is_for_this_machine_alone_unless_somebody_insists(home: Path) -> None:
    assert "--insecure" in problems(host="0.0.0.0")[0]
    assert "--insecure" in problems(public_url="https://tools.example.com")[0]
    assert load_settings(host="0.0.0.0", insecure=True).host == "0.0.0.0"
    assert load_settings(host="::1", public_url="http://localhost:9").host == "::1"
    (home / "tokens.yml").write_text("[]")
    assert load_settings(host="0.0.0.0", tokens="tokens.yml").auth_enabled


def test_what_kubernetes_sets_for_a_service_of_that_name_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTOSER_PORT", "tcp://10.0.0.7:8000")
    monkeypatch.setenv("PORTOSER_SERVICE_HOST", "10.0.0.7")
    assert "enableServiceLinks" in problems()[0]
    assert len(problems()) == 1


def test_a_git_url_is_not_taken_for_a_directory() -> None:
    assert "git URL" in problems(tools="git@github.com:acme/tools.git")[0]
    assert "git URL" in problems(tools="https://github.com/acme/tools")[0]


def test_the_registry_file_is_the_one_named_or_the_one_beside_the_tools_or_the_example(home: Path) -> None:
    assert load_settings().registry_path.name == "registry.example.yml"
    (home / "registry.yml").write_text("hosts: {}\n")
    assert load_settings().registry_path == home / "registry.yml"
    (home / "other.yml").write_text("hosts: {}\n")
    assert load_settings(registry="other.yml").registry_path == home / "other.yml"


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
