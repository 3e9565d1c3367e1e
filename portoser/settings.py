"""Every knob of the server: environment variables, `portoser.toml`, and the flags of `portoser serve`.

A flag beats an environment variable, which beats its ``_FILE`` variant, which beats `portoser.toml` in the
directory where the server starts. Wrong settings are told all at once, one sentence each, by `load_settings`.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from portoser.catalog.allowance import CEILINGS, Allowance, ceilings_of, told_ceilings
from portoser.catalog.errors import PortoserError
from portoser.catalog.units import parse_duration

PREFIX = "PORTOSER_"
FILE = "portoser.toml"

_OWN_NAMES = {"database_url": "DATABASE_URL", "log_level": "LOG_LEVEL"}
"""Fields whose environment variable has a name that the world already knows."""

_CLIENT_VARIABLES = frozenset({"PORTOSER_URL", "PORTOSER_TOKEN", "PORTOSER_SSE_URL", "PORTOSER_HTTP_URL"})
"""What the commands and the bridge read; not the server's, and not misspelt."""


class SettingsError(PortoserError):
    """The settings are wrong. ``problems`` holds one sentence for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Sandbox(StrEnum):
    """How tool code is isolated."""

    STRICT = "strict"
    OFF = "off"


class LogLevel(StrEnum):
    """How much the server tells in its log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _split(value: object) -> object:
    if isinstance(value, str):
        return [part for part in re.split(r"[,\s]+", value) if part]
    return value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is not an address or a network: write for example 10.0.0.0/8.") from None
    return value


def _port(value: object) -> object:
    if isinstance(value, str) and "://" in value:
        raise ValueError(
            f"{value!r} is not a port. Kubernetes sets this variable for a Service that is called 'portoser': "
            "give the pod enableServiceLinks: false, or the Service another name."
        )
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise ValueError(f"{value!r} is not a port: choose one from 0 (any that is free) to 65535.")
    return value


def _count(value: object) -> object:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1000:
        raise ValueError(f"{value!r} is not a number of processes: choose one from 1 to 1000.")
    return value


def _public_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{value!r} is not a public URL: write for example https://tools.example.com.")
    return value.rstrip("/")


def _postgres(value: SecretStr) -> SecretStr:
    try:
        scheme = urlsplit(value.get_secret_value()).scheme
    except ValueError:
        scheme = ""
    if scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise ValueError("this is not a Postgres URL: write postgresql://user:password@host:5432/database.")
    return value


def _tools(value: Path) -> Path:
    text = str(value)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/|[^/\s]+@[^/\s]+:", text):
        raise ValueError(f"{text!r} looks like a git URL: only a directory of a working tree can be served.")
    if not value.is_dir():
        raise ValueError(f"there is no directory {text!r}: make it, or name another one.")
    return value.resolve()


def _ceilings(value: str | dict[str, Any]) -> str | dict[str, Any]:
    ceilings_of(value)
    return value


def _existing_file(value: Path) -> Path:
    if not value.is_file():
        raise ValueError(f"there is no file {str(value)!r}.")
    return value.resolve()


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_split)]
Ceilings = Annotated[str | dict[str, Any], NoDecode, AfterValidator(_ceilings)]
ExistingFile = Annotated[Path, AfterValidator(_existing_file)]


class Settings(BaseSettings):
    """What the server is told when it starts. Build it by `load_settings`, which explains what is wrong."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    tools: Annotated[Path, AfterValidator(_tools)] = Field(
        default=Path("tools.d"), description="The directory whose tools are served: a working tree that is watched."
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="The address to listen on.")
    port: Annotated[int, BeforeValidator(_port)] = Field(
        default=8000, description="The port to listen on; 0 takes any that is free."
    )
    public_url: Annotated[str, AfterValidator(_public_url)] | None = Field(
        default=None,
        description="The URL that clients reach this server by, told in client configurations; "
        "unset: the one that a request came by.",
    )
    insecure: bool = Field(
        default=False,
        description="Allow that others than this machine reach a server that asks nobody who they are.",
    )
    database_url: Annotated[SecretStr, AfterValidator(_postgres)] | None = Field(
        default=None,
        validation_alias="database_url",
        description="The Postgres (14 or newer) of the registry; unset: an embedded one under the data directory.",
    )
    migrations_url: Annotated[SecretStr, AfterValidator(_postgres)] | None = Field(
        default=None,
        description="The same database by the role that owns its tables, used at start alone, to make and change them; "
        "DATABASE_URL's role is then granted no more than a server needs. Unset: DATABASE_URL's role does both.",
    )
    data: Path = Field(
        default=Path(".portoser"),
        description="The directory where the embedded database, and whatever else outlives a restart, is kept.",
    )
    registry: ExistingFile | None = Field(
        default=None,
        description="The registry.yml that the registry power reads; unset: the one beside the tools' directory, "
        "else the example that ships with Portoser.",
    )
    groups: Names = Field(default=(), description="Groups switched on at start, besides those that git declares.")
    admin_groups: Names = Field(default=(), description="RBAC groups that are admin whatever the policy says.")
    tokens: ExistingFile | None = Field(
        default=None,
        description="A YAML file of API tokens: name, hash, groups, expiry (see `portoser token new`). "
        "With it auth is on; without it everybody is anonymous and everything is open.",
    )
    sandbox: Annotated[Sandbox, BeforeValidator(_lower)] = Field(
        default=Sandbox.STRICT,
        description="`strict` isolates tools from the machine and from each other, and runs none where that cannot be "
        "had; `off` says that you trust every tool's code like your own.",
    )
    workers: Annotated[int, BeforeValidator(_count)] = Field(
        default_factory=lambda: max(4, 2 * (os.cpu_count() or 1)),
        description="How many worker processes run tools at the same time; by default two for each CPU, at least 4.",
    )
    answer_timeout: Annotated[float, BeforeValidator(parse_duration)] = Field(
        default="5m",
        validate_default=True,
        description="How long a person has to answer what a tool asks, for example 10m; it is no part of the time that "
        "the tool may take.",
    )
    limits: Ceilings = Field(
        default="",
        description="The most that a tool may have, whatever its `limits` ask for: `memory=1GiB, timeout=5m`. "
        f"What is not named stays as it is: {told_ceilings(CEILINGS)}.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Addresses or networks of the proxies whose X-Forwarded-For is believed.",
    )
    allowed_hosts: Names = Field(
        default=(),
        description="Host names that requests may ask for, besides this machine's own and the public URL's.",
    )
    allowed_origins: Names = Field(
        default=(),
        description="Origins of web pages that may speak to this server, besides its own.",
    )
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = Field(
        default=LogLevel.INFO, validation_alias="log_level", description="How much the server tells in its log."
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
        """Flags, environment, files named by the environment, `portoser.toml`: the first that says something wins."""
        return init_settings, env_settings, _SecretFiles(settings_cls), _TomlFile(settings_cls)

    @model_validator(mode="after")
    def _migrations_of_a_database(self) -> "Settings":
        if self.migrations_url is not None and self.database_url is None:
            raise ValueError(
                "PORTOSER_MIGRATIONS_URL is set and DATABASE_URL is not: set both, "
                "or neither for the embedded Postgres."
            )
        return self

    @model_validator(mode="after")
    def _open_to_others_only_on_purpose(self) -> "Settings":
        if self.tokens is not None or self.insecure:
            return self
        if not is_loopback(self.host):
            raise ValueError(
                f"PORTOSER_HOST is {self.host!r} and auth is off, so that everybody who reaches it could run anything: "
                "name a token file in PORTOSER_TOKENS, listen on 127.0.0.1, or accept it with --insecure."
            )
        if self.public_url is not None and not is_loopback(urlsplit(self.public_url).hostname or ""):
            raise ValueError(
                f"PORTOSER_PUBLIC_URL is {self.public_url!r} and auth is off, so that everybody who reaches it could "
                "run anything: name a token file in PORTOSER_TOKENS, or accept it with --insecure."
            )
        return self

    @property
    def auth_enabled(self) -> bool:
        """Whether callers have to say who they are."""
        return self.tokens is not None

    @property
    def registry_path(self) -> Path:
        """The registry.yml in force: the one named, the one beside the tools, or the example that ships."""
        if self.registry is not None:
            return self.registry
        beside = self.tools.resolve().parent / "registry.yml"
        return beside if beside.is_file() else Path(__file__).parent / "powers" / "registry.example.yml"

    @property
    def ceilings(self) -> Allowance:
        """The most that a tool may have."""
        return ceilings_of(self.limits)

    @property
    def data_path(self) -> Path:
        """The data directory, absolute."""
        return self.data.expanduser().resolve()


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def load_settings(**flags: Any) -> Settings:
    """Read the settings; ``flags`` are values of the same names that win, None standing for not given.

    Raises:
        SettingsError: everything that is wrong, one sentence each.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    problems = [*_misspelt(os.environ), *_both_ways(os.environ)]
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise SettingsError([*(_sentence(dict(detail), given) for detail in error.errors()), *problems]) from None
    except SettingsError as error:
        raise SettingsError([*error.problems, *problems]) from None
    if problems:
        raise SettingsError(problems)
    return settings


def variable(field: str) -> str:
    """The environment variable of a field."""
    return _OWN_NAMES.get(field) or PREFIX + field.upper()


def is_secret(field: FieldInfo) -> bool:
    """Whether a field holds a secret, so that it has a ``_FILE`` variant and is never shown."""
    return "SecretStr" in str(field.annotation)


def default_of(field: FieldInfo) -> str:
    """A field's default as people write it; empty where there is none, or where it depends on the machine."""
    default = field.default
    if field.default_factory is not None or default in (None, (), False):
        return ""
    return str(default.value if isinstance(default, StrEnum) else default)


def secret_fields() -> tuple[str, ...]:
    """The fields that can be given by a file's content."""
    return tuple(name for name, field in Settings.model_fields.items() if is_secret(field))


class _SecretFiles(PydanticBaseSettingsSource):
    """``<VARIABLE>_FILE`` names a file whose content is the value, white space at its ends cut off."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        name = variable(field_name) + "_FILE"
        path = os.environ.get(name) if is_secret(field) else None
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SettingsError([f"{name}: cannot read {path!r}: {reason}."]) from None

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value:
                found[key] = value
        return found


class _TomlFile(PydanticBaseSettingsSource):
    """`portoser.toml` in the working directory, where there is one."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        try:
            return tomllib.loads(Path(FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise SettingsError([f"{FILE}: it cannot be read: {reason}."]) from None
        except tomllib.TOMLDecodeError as error:
            raise SettingsError([f"{FILE}: this is not TOML: {error}."]) from None


def _sentence(detail: dict[str, Any], flags: Mapping[str, Any]) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ").rstrip(".")
    if not detail["loc"]:
        return f"{message}."
    field = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        near = get_close_matches(field, Settings.model_fields, n=1)
        return f"{FILE}: there is no setting {field!r}{f'; did you mean {near[0]!r}?' if near else '.'}"
    if detail["type"] == "enum":
        message = message.replace("Input should be", "choose")
    where = f"--{field.replace('_', '-')}" if field in flags else variable(field)
    return f"{where}: {message}."


def _misspelt(environ: Mapping[str, str]) -> list[str]:
    """Variables that are nearly one of ours: a misspelt PORTOSER_TOKENS would leave a server open."""
    known = {variable(name) for name in Settings.model_fields}
    known |= {f"{variable(name)}_FILE" for name in secret_fields()}
    found = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or name in _CLIENT_VARIABLES:
            continue
        near = get_close_matches(name, known, n=1, cutoff=0.93)
        if near:
            found.append(f"{name}: there is no such variable; did you mean {near[0]}?")
    return found


def _both_ways(environ: Mapping[str, str]) -> list[str]:
    names = [variable(name) for name in secret_fields()]
    return [
        f"{name} and {name}_FILE are both set: set one."
        for name in names
        if environ.get(name) and environ.get(f"{name}_FILE")
    ]
