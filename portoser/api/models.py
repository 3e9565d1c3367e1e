"""What REST answers, and what it takes: the models that the OpenAPI document is made of."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool


def _a_number(value: object) -> object:
    """As JSON Schema sees it: 2 and 2.0 are integers, but neither "2" nor true is."""
    if isinstance(value, str | bool):
        raise ValueError("This is not a number")
    return value


class Model(BaseModel):
    """A model that says what all of its members are."""

    model_config = ConfigDict(extra="forbid")


class ProblemItem(Model):
    """One thing that is wrong: where, what, and what would be right. Line and column are 0 where there are none."""

    path: str
    line: int
    column: int
    message: str
    advice: str
    severity: Literal["error", "warning"]
    tool: str | None = None


class ProblemDocument(BaseModel):
    """RFC 9457. ``code`` is a word for programs; ``errors`` lists everything that is wrong at once."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "There is no tool 'gret'. Did you mean 'greet'?",
                "code": "not_found",
                "instance": "/api/mcp/tools/gret",
                "errors": [],
            }
        }
    )

    type: str
    title: str
    status: int
    detail: str
    code: str = ""
    instance: str = ""
    errors: list[ProblemItem] = Field(default_factory=list)


class ProvenanceOut(Model):
    """Where a tool's declaration came from; ``commit`` ends with ``+dirty`` for what is not committed yet."""

    source: str
    path: str | None
    commit: str | None
    author: str | None
    applied_commit: str | None


class ToolOut(Model):
    """A tool in a list. ``permissions`` are those in force: its own, else its group's."""

    name: str
    description: str
    owner: str
    group: str | None
    permissions: list[str]
    own_permissions: list[str] | None = Field(description="What the tool itself declares; null inherits the group's.")
    enabled: bool = Field(description="Whether its group is switched on, so that it is served.")
    status: str
    problem: str | None = Field(description="What is wrong with the newest declaration, where the status says so.")
    version: int
    digest: str
    annotations: dict[str, Any]
    provenance: ProvenanceOut
    generation: int
    created_at: datetime
    updated_at: datetime


class FileOut(Model):
    """One Python module of a tool, in import order."""

    path: str
    content: str


class ToolDetail(ToolOut):
    """A tool with all that clients see of it. ``files`` is null for callers who may not edit tools."""

    entrypoint: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    limits: dict[str, Any]
    isolation: str
    confirm: str | None
    uses: dict[str, list[str]]
    requires: list[str]
    redact: list[str]
    files: list[FileOut] | None


class ToolChanged(ToolDetail):
    """A tool as it is now, and what its author should know of it."""

    warnings: list[ProblemItem]


class ToolPage(Model):
    """A page of tools, by name."""

    total: int
    skip: int
    limit: int
    tools: list[ToolOut]


class VersionOut(Model):
    """One version of a tool: which revision it was, and where it came from."""

    version: int
    digest: str
    commit: str | None
    author: str | None
    at: datetime
    current: bool


class VersionPage(Model):
    """A tool's versions, newest first."""

    total: int
    skip: int
    limit: int
    versions: list[VersionOut]


class RollbackIn(Model):
    """Which version to go back to."""

    version: Annotated[int, BeforeValidator(_a_number)] = Field(ge=1, le=2_147_483_647)


class AnswerIn(Model):
    """What a person did with a question; ``content`` is the form, filled in, where it was accepted."""

    action: Literal["accept", "decline", "cancel"]
    content: dict[str, Any] | None = None


class CallIn(Model):
    """A call's arguments. ``confirmed`` says that a person agreed to a tool that asks first.

    ``answers`` answer, by their keys, the ``questions`` that an earlier call was answered with 409; the ``state`` that
    came with them goes along, and is good for one call.
    """

    arguments: dict[str, Any] = Field(default_factory=dict)
    confirmed: StrictBool = False
    answers: dict[str, AnswerIn] = Field(default_factory=dict)
    state: str | None = Field(default=None, max_length=524_288)


class CallOut(Model):
    """What a tool answered: ``isError`` where it failed, and ``message`` says how."""

    outcome: str
    reason: str | None
    message: str | None
    isError: bool  # noqa: N815 - MCP's words
    content: list[dict[str, Any]]
    structuredContent: dict[str, Any] | None  # noqa: N815 - MCP's words
    tool: str
    version: int | None
    digest: str | None
    requestId: str  # noqa: N815 - MCP's words
    durationMs: float  # noqa: N815 - MCP's words
    logs: str


class ExplainOut(Model):
    """Whether a caller may see and call a tool, and why. What the one who asks may not know of the tool is null."""

    tool: str
    caller: str
    groups: list[str]
    allowed: bool
    reason: str
    message: str
    permissions: list[str] | None
    group: str | None
    enabled: bool | None


class OverrideOut(Model):
    """An operator's word that beats the declaration until it expires."""

    enabled: bool
    reason: str
    by: str
    at: datetime
    expires_at: datetime | None


class GroupOut(Model):
    """A group of tools. ``declared_enabled`` is null for a group that no manifest declares."""

    name: str
    description: str
    enabled: bool
    declared_enabled: bool | None
    permissions: list[str] | None = Field(description="Null for callers who are neither editors nor auditors.")
    owner: str | None
    path: str | None
    tools: int
    override: OverrideOut | None


class GroupPage(Model):
    """A page of groups, by name."""

    total: int
    skip: int
    limit: int
    groups: list[GroupOut]


class GroupIn(Model):
    """Switches a group over its declaration; ``enabled`` null takes the override back."""

    enabled: StrictBool | None
    reason: str = Field(min_length=1, max_length=500)
    ttl: str | Annotated[float, Field(gt=0, strict=True)] | None = Field(
        default=None,
        description="How long the override holds, for example 2h, or seconds; null: until it is taken back.",
    )


class CallerOut(Model):
    """Who the server takes a caller for, and what that caller may do."""

    subject: str
    name: str
    kind: str
    groups: list[str]
    client: str | None
    only_groups: list[str] | None
    roles: list[str]
    tools: int
    expires_at: datetime | None
    address: str | None


class AuditCaller(Model):
    """Who an entry speaks of."""

    subject: str
    name: str
    groups: list[str]
    kind: str


class PowerUsed(Model):
    """What a call used of a power, and how often: ``refused`` and ``failed`` are some of it; ``ms`` is of all."""

    power: str
    method: str
    target: str
    count: int
    refused: int
    failed: int
    ms: float


class EntryOut(Model):
    """One line of the audit log. Arguments and results are redacted."""

    id: str
    at: datetime
    event: str
    outcome: str
    reason: str | None
    caller: AuditCaller
    ip: str | None
    client: str | None
    agent: str | None
    session: str | None
    tool: str | None
    digest: str | None
    version: int | None
    commit: str | None
    path: str | None
    owner: str | None
    arguments: Any
    result: Any
    result_digest: str | None
    error: str | None
    duration_ms: float | None
    request_id: str | None
    powers: list[PowerUsed] | None


class AuditPageOut(Model):
    """Entries, newest first. ``next_cursor`` leads to older ones; null where there are none."""

    entries: list[EntryOut]
    next_cursor: str | None


class ConfigOut(Model):
    """How MCP clients connect. Headers hold placeholders, never a live token."""

    sse_url: str
    transport: Literal["sse"]
    headers: dict[str, str]
    http_url: str
    clients: dict[str, Any]


class HealthOut(Model):
    """The process answers."""

    status: Literal["ok"]
    version: str


class ReadyOut(Model):
    """The server can serve: it holds a snapshot, and the database answers."""

    status: Literal["ready"]
    generation: int
