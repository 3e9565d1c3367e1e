"""What of a call depends on the revision alone, made once for each that is called."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from portoser.audit.redaction import Redactor
from portoser.catalog.revision import Revision
from portoser.invocation.validation import ArgumentsValidator, BadSchema
from portoser.runtime.types import Program

_KEPT = 2048
_SECRET_POWERS = frozenset({"vault"})
"""Powers whose answers are secrets."""


class Prepared:
    """A revision, made ready for its calls."""

    __slots__ = ("bad_schema", "defaults", "lends_secrets", "program", "redactor", "validator")

    def __init__(self, revision: Revision) -> None:
        schema = revision.input_schema
        self.lends_secrets = not _SECRET_POWERS.isdisjoint(revision.uses)
        self.redactor = Redactor.for_schema(schema, revision.redact)
        self.defaults = _defaults(schema)
        self.program = Program(
            digest=revision.digest,
            entrypoint=revision.entrypoint,
            limits=revision.limits,
            isolation=revision.isolation,
            output_schema=revision.output_schema,
            environment=revision.lock,
        )
        self.validator: ArgumentsValidator | None = None
        self.bad_schema: str | None = None
        try:
            self.validator = ArgumentsValidator(schema)
        except BadSchema as error:
            self.bad_schema = str(error)


class PreparedRevisions:
    """The tools that were called last, prepared: one revision of each, so that what is outdated is not kept."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._by_name: OrderedDict[str, Prepared] = OrderedDict()

    def of(self, name: str, revision: Revision) -> Prepared:
        """The revision of a tool, prepared now or before."""
        prepared = self._by_name.get(name)
        if prepared is None or prepared.program.digest != revision.digest:
            prepared = self._by_name[name] = Prepared(revision)
            if len(self._by_name) > self._kept:
                self._by_name.popitem(last=False)
        self._by_name.move_to_end(name)
        return prepared


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {name: each["default"] for name, each in properties.items() if isinstance(each, dict) and "default" in each}
