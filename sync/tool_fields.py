"""The fields of a tool's declaration, in a manifest and in a REST request alike."""

from collections import Counter
from dataclasses import dataclass
from string import Formatter

import msgspec
from packaging.utils import canonicalize_name

from portoser.catalog import requirement
from portoser.catalog.names import GROUP_NAME, name_problem, name_warning, strict_name
from portoser.catalog.network import PlacePattern, place_pattern
from portoser.catalog.revision import Annotations, Example, Isolation, JsonSchema, Limits
from portoser.catalog.units import parse_duration, parse_rate, parse_size
from portoser.powers.room import OPEN, PRESENT, WORDS
from sync import fields
from sync.given import given
from sync.located import Node, Problems, did_you_mean
from sync.schemas import schema

TOOL_KEYS = (
    "name",
    "description",
    "entrypoint",
    "files",
    "permissions",
    "group",
    "annotations",
    "confirm",
    "isolation",
    "limits",
    "uses",
    "requires",
    "redact",
    "examples",
    "inputSchema",
    "outputSchema",
    "adopt",
)
POWERS = WORDS
"""What a manifest may ask for and a policy may grant; ``network`` is what the power ``http`` reaches."""

PRESENT_POWERS = PRESENT
"""Those that this server has; a call that uses another one fails."""

ANNOTATION_KEYS = ("title", "readOnly", "destructive", "idempotent", "openWorld")
LIMIT_KEYS = (
    *("timeout", "cpu", "memory", "scratch", "result", "logs", "output", "files", "powers"),
    *("concurrency", "rate", "share"),
)
MOST_FILES = 65_536
MOST_POWERS = 1_000_000
MOST_CONCURRENCY = 10_000
MOST_SHARE = 1_000
EXAMPLE_KEYS = ("call", "given", "expect")
_ANNOTATION_HINTS = {
    "readOnlyHint": "Did you mean 'readOnly'?",
    "destructiveHint": "Did you mean 'destructive'?",
    "idempotentHint": "Did you mean 'idempotent'?",
    "openWorldHint": "Did you mean 'openWorld'?",
}
_USES_HINTS = {"http": "The power http reaches the hosts under 'network': network: [\"api.stripe.com:443\"]."}
MAX_EXAMPLES = 50
_USUAL_ANNOTATIONS = Annotations()
_USUAL_LIMITS = Limits()
"""What most tools say nothing of is one object for all of them."""


@dataclass(frozen=True, slots=True)
class ToolFields:
    """Everything of a declaration but its code. ``name`` is None where it cannot be known."""

    name: str | None
    description: str | None
    permissions: tuple[str, ...] | None
    group: str | None
    group_place: Node | None
    adopt: bool
    annotations: Annotations
    limits: Limits
    isolation: Isolation
    confirm: tuple[str, Node] | None
    uses: dict[str, list[str]]
    uses_places: tuple[tuple[str, str, Node], ...]
    """The word of a power, what is asked of it, and where; of the powers that are granted by the policy."""
    requires: tuple[str, ...]
    requires_place: Node | None
    redact: tuple[tuple[str, Node], ...]
    examples: tuple[Example, ...]
    example_columns: dict[int, int]
    input_schema: JsonSchema | None
    output_schema: JsonSchema | None
    share: Node | None


def tool_fields(problems: Problems, pairs: dict[str, Node], *, place: Node, default_name: str | None) -> ToolFields:
    """Read the fields, and tell of everything that is wrong with them. ``place`` is the whole declaration."""
    uses, uses_places = _uses(problems, pairs.get("uses"))
    limits, share = _limits(problems, pairs.get("limits"))
    confirm = fields.text(problems, pairs.get("confirm"), "confirm", 'confirm: "Refund {amount}?"')
    redact = fields.texts(problems, pairs.get("redact"), "redact", "redact: [card_number]")
    isolation = fields.choice(problems, pairs.get("isolation"), "isolation", tuple(Isolation))
    description = fields.text(problems, pairs.get("description"), "description", "description: Refund an order.")
    return ToolFields(
        name=_name(problems, pairs.get("name"), place, default_name),
        description=description.strip() if description is not None else None,
        permissions=fields.words(problems, pairs.get("permissions"), "permissions", "permissions: [operator]"),
        group=group_name(problems, pairs.get("group"), "group", "group: orders"),
        group_place=pairs.get("group"),
        adopt=fields.flag(problems, pairs.get("adopt"), "adopt") or False,
        annotations=_annotations(problems, pairs.get("annotations")),
        limits=limits,
        isolation=Isolation(isolation) if isolation else Isolation.REUSE,
        confirm=(confirm, pairs["confirm"]) if confirm is not None else None,
        uses=uses,
        uses_places=uses_places,
        requires=_requires(problems, pairs.get("requires")),
        requires_place=pairs.get("requires"),
        redact=redact or (),
        examples=_examples(problems, pairs.get("examples")),
        example_columns=_example_columns(pairs.get("examples")),
        input_schema=schema(problems, pairs.get("inputSchema"), "inputSchema"),
        output_schema=schema(problems, pairs.get("outputSchema"), "outputSchema"),
        share=share,
    )


def _name(problems: Problems, node: Node | None, place: Node, default: str | None) -> str | None:
    if node is None and default is None:
        problems.error(place, "A tool needs a name.", "Write for example: name: orders.refund")
        return None
    name = default if node is None else fields.text(problems, node, "name", "name: orders.refund")
    if name is None:
        return None
    wrong = name_problem(name)
    if wrong is not None:
        made = "" if node is not None else " It is made of the file's path; 'name:' gives it another one."
        problems.error(node or place, wrong, f"Write for example: name: orders.refund.{made}")
        return None
    unliked = name_warning(name)
    if unliked is not None:
        problems.warning(node or place, unliked, f"Name it {strict_name(name)!r} if your clients refuse it.")
    return name


def group_name(problems: Problems, node: Node | None, field: str, form: str) -> str | None:
    """The name of a group, or None where there is none or it cannot be one."""
    name = fields.text(problems, node, field, form)
    if name is None or node is None or GROUP_NAME.fullmatch(name):
        return name
    problems.error(
        node,
        f"{name[:70]!r} cannot be a group's name: up to 64 letters, digits, '_', '.' and '-', not '.' or '-' first.",
        f"Write for example: {form}",
    )
    return None


def _annotations(problems: Problems, node: Node | None) -> Annotations:
    form = "annotations: {readOnly: true}"
    pairs = fields.mapping(problems, node, "annotations", form, ANNOTATION_KEYS, hints=_ANNOTATION_HINTS)
    told = {
        name: value
        for name, key in (
            ("read_only", "readOnly"),
            ("destructive", "destructive"),
            ("idempotent", "idempotent"),
            ("open_world", "openWorld"),
        )
        if (value := fields.flag(problems, pairs.get(key), f"annotations.{key}")) is not None
    }
    title = fields.text(problems, pairs.get("title"), "annotations.title", 'title: "Refund an order"')
    return Annotations(title=title, **told) if told or title is not None else _USUAL_ANNOTATIONS


def _limits(problems: Problems, node: Node | None) -> tuple[Limits, Node | None]:
    form = "limits: {timeout: 10s, memory: 256MiB, rate: 60/min}"
    pairs = fields.mapping(problems, node, "limits", form, LIMIT_KEYS)
    read = {
        **{name: fields.parsed(problems, pairs.get(name), parse_duration) for name in ("timeout", "cpu")},
        **{
            name: fields.parsed(problems, pairs.get(name), parse_size)
            for name in ("memory", "scratch", "result", "logs", "output")
        },
        "files": fields.whole_number(problems, pairs.get("files"), "limits.files", "files: 64", at_most=MOST_FILES),
        "powers": fields.whole_number(
            problems, pairs.get("powers"), "limits.powers", "powers: 1000", at_most=MOST_POWERS
        ),
        "rate": fields.parsed(problems, pairs.get("rate"), parse_rate),
        "concurrency": fields.whole_number(
            problems, pairs.get("concurrency"), "limits.concurrency", "concurrency: 4", at_most=MOST_CONCURRENCY
        ),
        "share": fields.whole_number(problems, pairs.get("share"), "limits.share", "share: 8", at_most=MOST_SHARE),
    }
    told = {name: value for name, value in read.items() if value is not None}
    return msgspec.convert(told, Limits) if told else _USUAL_LIMITS, pairs.get("share")


def _uses(problems: Problems, node: Node | None) -> tuple[dict[str, list[str]], tuple[tuple[str, str, Node], ...]]:
    form = 'uses: {vault: ["orders/stripe-key"], network: ["api.stripe.com:443"]}'
    uses: dict[str, list[str]] = {}
    places: list[tuple[str, str, Node]] = []
    for power, value in fields.mapping(problems, node, "uses", form, POWERS, hints=_USES_HINTS).items():
        asked = fields.texts(problems, value, f"uses.{power}", f'{power}: ["…"]')
        if asked is not None:
            uses[power] = [word for word, _ in asked]
        if power == "network":
            asked = places_among(problems, asked or ())
        if power in PRESENT_POWERS and power not in OPEN:
            places += [(power, word, item.bare()) for word, item in asked or ()]
        if power not in PRESENT_POWERS:
            key = Node(power, value.path, value.key_line or value.line, value.key_column or value.column)
            problems.warning(key, f"This server has no power {power!r} yet: a call that uses it fails.")
    return uses, tuple(places)


def places_among(problems: Problems, asked: tuple[tuple[str, Node], ...]) -> tuple[tuple[str, Node], ...]:
    """The texts that name a host and a port; of the others is told."""
    return tuple((word, item) for word, item in asked if fields.parsed(problems, item, _place) is not None)


def _place(word: object) -> PlacePattern:
    return place_pattern(str(word))


def _requires(problems: Problems, node: Node | None) -> tuple[str, ...]:
    form = 'requires: ["httpx==0.28.1"]'
    taken: dict[str, str] = {}
    for word, item in fields.texts(problems, node, "requires", form) or ():
        try:
            name = canonicalize_name(requirement.parsed(word).name)
        except requirement.Refused as error:
            message = f"'requires' takes packages of the index, by name and version; of {word[:80]!r}: {error}."
            problems.error(item, message, error.advice)
            continue
        if name == "portoser":
            problems.error(item, "Every tool has portoser.", "Take it out; `from portoser.tool import …` works.")
        elif name in taken:
            once = f'Write it once, with all of its versions, for example "{name}>=1,<2".'
            problems.error(item, f"The package {name} stands twice in 'requires'.", once)
        else:
            taken[name] = word.strip()
    if node is not None and len(taken) > requirement.MOST:
        problems.key_error(
            node,
            f"'requires' names {len(taken)} packages; at most {requirement.MOST} are taken.",
            "Name only what the code imports: what those packages need comes with them.",
        )
    return tuple(taken.values())


def _examples(problems: Problems, node: Node | None) -> tuple[Example, ...]:
    form = "examples: [{call: {order_id: A1}, expect: {status: refunded}}]"
    if node is None:
        return ()
    if not isinstance(node.value, list):
        fields.wrong_type(problems, node, "examples", form)
        return ()
    if len(node.value) > MAX_EXAMPLES:
        problems.error(node, f"{len(node.value)} examples; at most {MAX_EXAMPLES} are run.", "Keep the ones that tell.")
        return ()
    return tuple(_example(problems, item, form) for item in node.value)


def _example_columns(node: Node | None) -> dict[int, int]:
    items = node.value if node is not None and isinstance(node.value, list) else []
    lines = Counter(item.line for item in items)
    return {item.line: item.column for item in items if lines[item.line] == 1 and item.line}


def _example(problems: Problems, node: Node, form: str) -> Example:
    pairs = fields.mapping(problems, node, "examples", form, EXAMPLE_KEYS)
    call = pairs.get("call")
    if call is not None and not isinstance(call.value, dict):
        fields.wrong_type(problems, call, "call", "call: {order_id: A1, amount: 5}")
        call = None
    expect = pairs.get("expect")
    return Example(
        call=call.plain() if call is not None else {},
        given=given(problems, pairs.get("given")),
        expect=expect.plain() if expect is not None else msgspec.UNSET,
        line=node.line,
    )


def check_against_parameters(
    problems: Problems, declared: ToolFields, parameters: tuple[str, ...] | None, *, is_async: bool | None
) -> None:
    """What must agree with the function: the question's fields, redacted arguments, examples' arguments, sharing.

    ``parameters`` is None where they are not known from the text.
    """
    if declared.input_schema is not None:
        properties = declared.input_schema.get("properties")
        parameters = tuple(properties) if isinstance(properties, dict) else None
    if declared.share is not None and declared.limits.share > 1 and is_async is False:
        problems.error(
            declared.share,
            "'limits.share' lets one worker run several calls, which needs an async function.",
            "Write 'async def', or take the limit out.",
        )
    if declared.share is not None and declared.limits.share > 1 and declared.isolation is Isolation.FRESH:
        problems.error(
            declared.share,
            "'limits.share' lets calls share a worker, where 'isolation: fresh' gives each its own.",
            "Take one of the two out.",
        )
    if declared.confirm is not None:
        _check_question(problems, *declared.confirm, parameters)
    if parameters is None:
        return
    for name, node in declared.redact:
        if name not in parameters:
            problems.warning(
                node,
                f"No parameter is called {name!r}; only fields of that name inside arguments are redacted.",
                did_you_mean(name, parameters),
            )


def _check_question(problems: Problems, question: str, node: Node, parameters: tuple[str, ...] | None) -> None:
    try:
        placeholders = _placeholders(question)
    except ValueError:
        problems.error(node, "'confirm' is not a template.", "Write a brace that is meant as one twice: '{{'.")
        return
    for name in placeholders:
        if not name.isidentifier():
            problems.error(
                node,
                f"'confirm' holds {{{name}}}, which is not the name of an argument alone.",
                "Write for example: {amount}",
            )
        elif parameters is not None and name not in parameters:
            problems.error(
                node,
                f"'confirm' asks for {{{name}}}, but the tool has no such argument.",
                did_you_mean(name, parameters) or f"Its arguments: {', '.join(parameters) or 'none'}.",
            )


def _placeholders(question: str) -> list[str]:
    found: list[str] = []
    for _, name, form, conversion in Formatter().parse(question):
        if name is None:
            continue
        found.append(name if not form and not conversion else f"{name}:{form}")
    return found
