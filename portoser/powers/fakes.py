"""What stands in for the powers while an example runs: what its ``given`` says, and nothing else.

A fake knows of no policy, which is not the tool's to choose; but what the manifest does not declare is refused here as
it is on a server, so that an example finds it.
"""

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from portoser.catalog.errors import PowerError
from portoser.powers.base import Power, PowerRefused, asked_for, unknown_method
from portoser.powers.fake_answers import FakeAnswers
from portoser.powers.registry import METHODS as REGISTRY_METHODS
from portoser.powers.room import KEPT

HTTP_KEYS = ("method", "url", "status", "headers", "json", "text", "base64", "error")
"""What a fake answer of ``http`` may say."""
HTTP_BODIES = ("json", "text", "base64", "error")


class Fake(ABC):
    """Stands in for one power. ``given`` is what the example says under its name; None where it says nothing."""

    def __init__(self, given: Any) -> None:
        self.given = given

    @abstractmethod
    def call(self, method: str, args: list[Any], kwargs: dict[str, Any], uses: "Uses") -> Any:
        """The answer that the example gives.

        Raises:
            PowerError: it gives none.
        """


class Uses:
    """What a manifest asks for, as a power's own check sees it."""

    def __init__(self, tool: str, uses: Mapping[str, Sequence[str]]) -> None:
        self._tool = tool
        self._uses = uses

    def check(self, power: Power, resource: str) -> None:
        """Refuse what the manifest does not ask for, as `Use.granted` does."""
        asked_for(power, self._tool, self._uses, resource)

    def check_named(self, name: str, word: str) -> None:
        """Refuse a power that the manifest does not name."""
        if word not in self._uses:
            raise PowerRefused(
                f"{self._tool} uses the power {name}, but its manifest does not say so. "
                f"Name what it needs under `uses: {{{word}: […]}}`."
            )


class ByMethod(Fake):
    """``{services: […]}`` answers ``services()``; what is called with one argument is answered by its entry."""

    name: ClassVar[str]
    methods: ClassVar[tuple[str, ...]] = ()

    def call(self, method: str, args: list[Any], kwargs: dict[str, Any], uses: Uses) -> Any:
        """The entry of the function, or of its one argument."""
        if self.methods and method not in self.methods:
            raise unknown_method(self.name, method, self.methods)
        if not isinstance(self.given, dict) or method not in self.given:
            raise _nothing_given(f"{self.name}.{method}()", f"{{{self.name}: {{{method}: …}}}}")
        answer = self.given[method]
        asked = [*args, *kwargs.values()]
        if len(asked) != 1:
            return answer
        if not isinstance(answer, dict) or str(asked[0]) not in answer:
            raise _nothing_given(
                f"{self.name}.{method}({asked[0]!r})", f"{{{self.name}: {{{method}: {{{asked[0]}: …}}}}}}"
            )
        return answer[str(asked[0])]


class RegistryFake(ByMethod):
    """``given: {registry: {services: […], service: {web: {…}}}}``."""

    name = "registry"
    methods = REGISTRY_METHODS


class ClusterFake(ByMethod):
    """``given: {cluster: {FUNCTION: …}}``."""

    name = "cluster"


class VaultFake(Fake):
    """``given: {vault: {"orders/stripe-key": test}}``: whatever is asked of a path, is answered by its entry."""

    def call(self, method: str, args: list[Any], kwargs: dict[str, Any], uses: Uses) -> Any:
        """The entry of the path."""
        path = next((value for value in (*args, *kwargs.values()) if isinstance(value, str)), None)
        if not isinstance(self.given, dict) or path not in self.given:
            raise _nothing_given(f"vault.{method}({path!r})", f'{{vault: {{"{path}": …}}}}')
        return self.given[path]


class HttpFake(Fake):
    """``given: {http: [{url: "https://api.example.com/*", method: GET, status: 200, json: {…}}]}``: the first that fits
    answers.

    A request is checked as the real power checks it: what it would refuse, an example finds.
    """

    def call(self, method: str, args: list[Any], kwargs: dict[str, Any], uses: Uses) -> Any:
        """The first answer whose method and URL are those of the request."""
        from portoser.powers.http import HttpPower
        from portoser.powers.http_request import read_request

        request = read_request(method, args, kwargs)
        uses.check(HttpPower(), str(request.place))
        url = str(request.url)
        for answer in self.given if isinstance(self.given, list) else ():
            if _fits(answer, method, (url, str(args[0]) if args else url)):
                if "error" in answer:
                    raise PowerError(f"{request.shown}: {answer['error']}")
                content, kind = _content(answer)
                headers = {**({"content-type": kind} if kind else {}), **dict(answer.get("headers") or {})}
                told = [(str(name).lower(), str(value)) for name, value in headers.items()]
                return {"status": answer.get("status", 200), "headers": told, "content": content, "url": url}
        shown = f"{method.upper()} {url}"
        raise _nothing_given(shown, f'{{http: [{{method: {method.upper()}, url: "{url}", json: {{…}}}}]}}')


def _fits(answer: Any, method: str, urls: tuple[str, ...]) -> bool:
    if not isinstance(answer, dict) or str(answer.get("method") or method).lower() != method:
        return False
    pattern = str(answer.get("url", "")).replace("…", "*")
    # Only '*' is a pattern: URLs have brackets and question marks of their own.
    pattern = pattern.replace("[", "[[]").replace("?", "[?]")
    return any(fnmatchcase(url, pattern) for url in urls)


def _content(answer: dict[str, Any]) -> tuple[bytes, str | None]:
    if "json" in answer:
        return json.dumps(answer["json"], ensure_ascii=False).encode(), "application/json"
    if "base64" in answer:
        return base64.b64decode(str(answer["base64"])), "application/octet-stream"
    return str(answer.get("text", "")).encode(), "text/plain; charset=utf-8" if "text" in answer else None


FAKES: Mapping[str, type[Fake]] = {
    "registry": RegistryFake,
    "http": HttpFake,
    "vault": VaultFake,
    "cluster": ClusterFake,
}


class FakePowers:
    """The powers of an example. ``uses`` is what the manifest asks for."""

    def __init__(self, given: Mapping[str, Any], *, tool: str = "", uses: Mapping[str, Sequence[str]]) -> None:
        self._given = given
        self._uses = Uses(tool or "The tool", uses)
        self._answers = FakeAnswers(given.get("ctx"))

    async def call(self, power: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """The answer that the example gives.

        Raises:
            PowerError: it gives none, or a server would refuse the question.
        """
        if power == "ctx":
            return self._answers.call(method, args)
        kept = next((kept for kept in KEPT if kept.name == power), None)
        if kept is None:
            raise unknown_method("Portoser", power, [kept.name for kept in KEPT])
        if not kept.is_open:
            self._uses.check_named(kept.name, kept.word)
        return FAKES[power](self._given.get(power)).call(method, args, kwargs, self._uses)


def _nothing_given(asked: str, form: str) -> PowerRefused:
    return PowerRefused(f"The example gives no answer for {asked}: write given: {form}.")
