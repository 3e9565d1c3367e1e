"""What of a call depends on the revision alone, made once for each digest."""

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
        )
        self.validator: ArgumentsValidator | None = None
        self.bad_schema: str | None = None
        try:
            self.validator = ArgumentsValidator(schema)
        except BadSchema as error:
            self.bad_schema = str(error)


class PreparedRevisions:
    """The revisions that were called last, prepared."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._by_digest: OrderedDict[str, Prepared] = OrderedDict()

    def of(self, revision: Revision) -> Prepared:
        """The revision, prepared now or before."""
        prepared = self._by_digest.get(revision.digest)
        if prepared is None:
            prepared = self._by_digest[revision.digest] = Prepared(revision)
            if len(self._by_digest) > self._kept:
                self._by_digest.popitem(last=False)
        else:
            self._by_digest.move_to_end(revision.digest)
        return prepared


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {name: each["default"] for name, each in properties.items() if isinstance(each, dict) and "default" in each}
