"""What uv is told of indexes: what the operator has said, to uv or to pip, and nothing else of the server's."""

from pathlib import Path

import pytest

from portoser.runtime.environments import indexes
from portoser.runtime.environments.uv import readable


def home_with(folder: Path, **files: str) -> dict[str, str]:
    for name, text in files.items():
        path = folder / ".config" / name.replace("_", "/", 1).replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {"HOME": str(folder), "PIP_CONFIG_FILE": str(folder / "none")}


def test_nothing_of_the_servers_environment_reaches_uv_but_what_is_meant_for_it(tmp_path: Path) -> None:
    said = {
        "UV_DEFAULT_INDEX": "https://packages.example/simple",
        "UV_INDEX_TEAM_PASSWORD": "hush",
        "https_proxy": "http://proxy.example",
        "SSL_CERT_FILE": "/etc/certs.pem",
    }
    given = indexes.variables({**said, "DATABASE_URL": "postgresql://x", "PORTOSER_TOKENS": "y", "UV_NO_BUILD": "0"})
    assert {name: given[name] for name in said} == said
    assert not {"DATABASE_URL", "PORTOSER_TOKENS", "UV_NO_BUILD"} & given.keys()


def test_pips_words_count_where_uvs_say_nothing(tmp_path: Path) -> None:
    file = "[global]\nindex-url = https://file.example/simple\nextra-index-url =\n  https://a.example\n  https://b.example\n"
    environ = home_with(tmp_path, pip_pip_conf=f"{file}[install]\nfind-links = /wheels /more\nno-index = yes\n")
    given = indexes.variables(environ)
    assert given["UV_DEFAULT_INDEX"] == "https://file.example/simple"
    assert given["UV_EXTRA_INDEX_URL"] == "https://a.example https://b.example"
    assert given["UV_FIND_LINKS"] == "/wheels,/more"
    assert indexes.options(environ) == ["--no-index"]
    assert indexes.options({**environ, "PIP_NO_INDEX": "0"}) == []
    assert indexes.variables({**environ, "PIP_INDEX_URL": "https://env.example"})["UV_DEFAULT_INDEX"] == (
        "https://env.example"
    )
    given = indexes.variables({**environ, "UV_INDEX_URL": "https://uv.example", "UV_FIND_LINKS": "/mine"})
    assert (given["UV_INDEX_URL"], given["UV_FIND_LINKS"]) == ("https://uv.example", "/mine")
    assert "UV_DEFAULT_INDEX" not in given


def test_the_operators_uv_toml_counts_and_none_beside_the_tools_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uv.toml").write_text('index-url = "https://strangers.example"')
    monkeypatch.chdir(tmp_path)
    environ = {"HOME": str(tmp_path / "home")}
    assert indexes.config_file(environ) in (None, Path("/etc/uv/uv.toml"))
    environ = home_with(tmp_path / "home", uv_uv_toml="", pip_pip_conf="[global]\nindex-url = https://pip.example\n")
    assert indexes.config_file(environ) == tmp_path / "home/.config/uv/uv.toml"
    assert "UV_DEFAULT_INDEX" not in indexes.variables(environ)
    assert indexes.config_file({**environ, "UV_CONFIG_FILE": "/my/uv.toml"}) == Path("/my/uv.toml")


def test_credentials_are_taken_out_of_what_uv_says() -> None:
    given = {
        "UV_DEFAULT_INDEX": "https://robot:Sw0rdfish@packages.example/simple",
        "UV_INDEX_TEAM_PASSWORD": "hush-hush",
    }
    said = "Failed to fetch: `https://robot:Sw0rdfish@packages.example/simple/a/` with hush-hush, user robot"
    told = indexes.without_secrets(said, indexes.secrets_in(given))
    assert told == "Failed to fetch: `https://packages.example/simple/a/` with ****, user ****"


def test_what_uv_says_becomes_one_short_text() -> None:
    said = (
        "  × No solution found when resolving dependencies:\n"
        "  ╰─▶ Because a was not found and you require a, we can conclude that your\n"
        "      requirements are unsatisfiable.\n\n"
        "      hint: Wheels are required for `a` because building is disabled. Use `--x`.\n"
    )
    assert readable(said) == (
        "Because a was not found and you require a, we can conclude that your requirements are unsatisfiable. "
        "(Wheels are required for `a` because building is disabled.)"
    )
