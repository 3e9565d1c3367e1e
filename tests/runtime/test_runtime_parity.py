"""Schemas and results are FastMCP's: the same functions, described and run by both."""

# ruff: noqa: E501 - tables of code are read by the line

import textwrap
from typing import Any

import pytest
from fastmcp.exceptions import ToolError
from fastmcp.tools.function_parsing import ParsedFunction
from fastmcp.tools.function_tool import FunctionTool

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEADER = """
import asyncio, collections, dataclasses, datetime, decimal, enum, pathlib, typing, uuid
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import *
from typing_extensions import TypedDict
from pydantic import AfterValidator, BaseModel, ConfigDict, EmailStr, Field, HttpUrl, SecretStr

class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2

@dataclass
class Point:
    '''A point.'''
    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)

class Item(BaseModel):
    '''An item.'''
    name: str = Field(description="its name", alias="itemName")
    price: float = Field(ge=0)
    parent: "Item | None" = None

class Aliased(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True, populate_by_name=True)
    long_name: str = Field(alias="longName")

class Movie(TypedDict):
    title: str
    year: NotRequired[int]

class Pair(NamedTuple):
    a: int
    b: str
"""

SIGNATURES = {
    "plain": "def tool(a: int, b: str, c: float, d: bool) -> str:\n    '''Plain.'''",
    "nothing": "def tool(): ...",
    "untyped": "def tool(a, b=1): ...",
    "defaults": "def tool(a: int = 1, b: str = 'x', c: list[int] = [1, 2], d: dict = {}) -> int: ...",
    "optional": "def tool(a: Optional[int], b: int | None = None, c: Optional[str] = 'x') -> int | None: ...",
    "union": "def tool(a: int | str | list[int], b: Union[Point, Item]) -> int | str: ...",
    "annotated": "def tool(a: Annotated[int, Field(ge=1, le=9, description='some a')] = 3) -> Annotated[int, Field(gt=0)]: ...",
    "annotated text": "def tool(a: Annotated[int, 'the a'], b: Annotated[str, 'the b'] = 'x'): ...",
    "field defaults": "def tool(a: int = Field(default=3, description='x', title='The A'), b: str = Field('y', min_length=1)): ...",
    "enums": "def tool(a: Colour, b: Level = Level.HIGH, c: Colour = Colour.RED) -> Colour: ...",
    "literal": "def tool(a: Literal['x', 'y'], b: Literal[1, 2] = 1) -> Literal['x']: ...",
    "dataclass": "def tool(a: Point, b: list[Point] = []) -> Point: ...",
    "model": "def tool(a: Item, b: dict[str, Item]) -> Item: ...",
    "list of models": "def tool(a: list[Item]) -> list[Item]: ...",
    "aliased": "def tool(a: Aliased) -> Aliased: ...",
    "typed dict": "def tool(a: Movie) -> Movie: ...",
    "named tuple": "def tool(a: Pair) -> Pair: ...",
    "dates": "def tool(a: datetime, b: date, c: time, d: timedelta, e: datetime.datetime if False else datetime) -> datetime: ...",
    "odd types": "def tool(a: uuid.UUID, b: decimal.Decimal, c: pathlib.Path, d: bytes, e: SecretStr, f: HttpUrl): ...",
    "containers": "def tool(a: list, b: list[int], c: set[str], d: tuple[int, str], e: tuple[int, ...], f: dict[str, int], g: Sequence[int]): ...",
    "any": "def tool(a: Any, b: object, c: dict[str, Any]) -> Any: ...",
    "keyword only": "def tool(a: int, *, b: str = 'x') -> dict[str, int]: ...",
    "async": "async def tool(a: int) -> dict[str, Any]:\n    '''Async.'''",
    "generator": "def tool(a: int) -> Iterator[int]:\n    yield a",
    "returns none": "def tool(a: int) -> None: ...",
    "returns list": "def tool() -> list: ...",
    "returns list of any": "def tool() -> list[Any]: ...",
    "returns list of int": "def tool() -> list[int]: ...",
    "returns tuple": "def tool() -> tuple[int, str]: ...",
    "returns bytes": "def tool() -> bytes: ...",
    "returns bytes or none": "def tool() -> bytes | None: ...",
    "returns bool": "def tool() -> bool: ...",
    "returns image": "def tool() -> Image: ...",
    "returns images": "def tool() -> list[Image]: ...",
    "returns image or text": "def tool() -> Image | str: ...",
    "returns audio": "def tool() -> Audio: ...",
    "returns resource": "def tool() -> EmbeddedResource: ...",
    "strings": "def tool(a: 'Optional[Point]', b: 'list[Item]' = None) -> 'Point': ...",
    "google docstring": """
        def tool(a: int, b: str = "x") -> dict[str, int]:
            '''Do a thing.

            More about it.

            Args:
                a: The first,
                    on two lines.
                b (str): The second.

            Returns:
                What came of it.

            Raises:
                ValueError: never.
            '''
    """,
    "numpy docstring": """
        def tool(a: int, b: str = "x"):
            '''Do a thing.

            Parameters
            ----------
            a : int
                The first.
            b : str
                The second.
            '''
    """,
    "sphinx docstring": """
        def tool(a: int, b: Annotated[str, Field(description="kept")] = "x"):
            '''Do a thing.

            :param a: The first.
            :param b: Not this.
            :returns: Nothing.
            '''
    """,
    "recursive": "def tool(a: 'Node') -> 'Node': ...\nclass Node(BaseModel):\n    children: list['Node'] = []",
    "validators": "def tool(a: Annotated[int, AfterValidator(lambda v: v + 1)]) -> int: ...",
    "partial": "import functools\ndef base(a: int, b: str):\n    '''Base.\n\n    Args:\n        a: An a.\n    '''\ntool = functools.partial(base, b='x')",
    "callable object": "class Tool:\n    '''An object.'''\n    def __call__(self, a: int) -> int:\n        '''Call.\n\n        Args:\n            a: An a.\n        '''\n        return a\ntool = Tool()",
    "decorated": "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def inner(*args, **kwargs):\n        return f(*args, **kwargs)\n    return inner\n@deco\ndef tool(a: int) -> dict[str, int]:\n    '''Decorated.'''\n    return {'a': a}",
}

RESULTS = {
    "dict": "def tool(): return {'a': 1, 'b': [1.5, None, True], 'c': {'d': 'ü'}}",
    "typed dict result": "def tool() -> dict[str, int]: return {'a': 1}",
    "int keys": "def tool() -> dict[int, str]: return {1: 'a'}",
    "int": "def tool() -> int: return 5",
    "untyped int": "def tool(): return 5",
    "float": "def tool() -> float: return 0.1",
    "bool": "def tool() -> bool: return False",
    "text": "def tool() -> str: return 'hello ü'",
    "untyped text": "def tool(): return 'hello'",
    "none": "def tool() -> None: return None",
    "optional none": "def tool() -> int | None: return None",
    "untyped none": "def tool(): pass",
    "list": "def tool() -> list[int]: return [1, 2]",
    "bare list": "def tool() -> list: return [1, {'a': 2}]",
    "untyped list": "def tool(): return ['a', 1]",
    "empty list": "def tool() -> list[str]: return []",
    "untyped empty list": "def tool(): return []",
    "tuple": "def tool() -> tuple[int, str]: return (1, 'a')",
    "set": "def tool() -> set[int]: return {1}",
    "dataclass": "def tool() -> Point: return Point(1, 2, ['a'])",
    "untyped dataclass": "def tool(): return Point(1)",
    "list of dataclasses": "def tool() -> list[Point]: return [Point(1), Point(2)]",
    "model": "def tool() -> Item: return Item(itemName='a', price=1)",
    "untyped model": "def tool(): return Item(itemName='a', price=1)",
    "aliased model": "def tool() -> Aliased: return Aliased(longName='a')",
    "model for dict": "def tool() -> dict[str, Any]: return Item(itemName='a', price=1).model_dump()",
    "subclass of declared": "class Sub(Item):\n    extra: int = 1\ndef tool() -> Item: return Sub(itemName='a', price=1)",
    "dates": "def tool() -> dict: return {'d': datetime(2026, 1, 2), 'u': uuid.UUID(int=1), 't': timedelta(1), 'x': decimal.Decimal('1.50')}",
    "datetime": "def tool() -> datetime: return datetime(2026, 1, 2)",
    "enum": "def tool() -> Colour: return Colour.RED",
    "secret": "def tool() -> dict: return {'s': SecretStr('x')}",
    "named tuple": "def tool() -> Pair: return Pair(1, 'b')",
    "bytes": "def tool() -> bytes: return b'hello'",
    "binary": "def tool() -> bytes: return bytes(range(256))",
    "untyped binary": "def tool(): return b'\\xff'",
    "bytes inside": "def tool(): return {'a': b'hello'}",
    "binary inside": "def tool(): return {'a': b'\\xff'}",
    "object": "class Thing:\n    def __str__(self): return 'thing'\ndef tool(): return Thing()",
    "object inside": "class Thing:\n    def __str__(self): return 'thing'\ndef tool(): return {'a': Thing()}",
    "object for any": "class Thing:\n    def __str__(self): return 'thing'\ndef tool() -> Any: return [Thing()]",
    "object for dict": "class Thing:\n    def __str__(self): return 'thing'\ndef tool() -> dict: return {'a': Thing()}",
    "image": "def tool() -> Image: return Image(data=b'png')",
    "image format": "def tool(): return Image(data=b'x', format='jpg')",
    "audio": "def tool(): return Audio(data=b'x', format='mp3')",
    "mixed": "def tool() -> list: return ['text', Image(data=b'x'), {'a': 1}, 5, None, b'b', Audio(data=b'y')]",
    "untyped mixed": "def tool(): return (Image(data=b'x'), 'a')",
    "images": "def tool() -> list[Image]: return [Image(data=b'x'), Image(data=b'y', format='gif')]",
    "generator": "def tool():\n    yield 1\n    yield 'b'",
    "typed generator": "def tool() -> Iterator[int]:\n    yield 1",
    "async generator": "async def tool():\n    yield 1",
    "async": "async def tool() -> list[int]: return [1]",
    "nan": "def tool(): return {'a': float('inf')}",
    "text subclass": "class T(str): pass\ndef tool(): return T('x')",
    "wrong type": "def tool() -> int: return 'text'",
    "wrong shape": "def tool() -> dict[str, int]: return [1]",
    "ordered": "def tool(): return collections.OrderedDict(b=1, a=2)",
    "circular": "def tool():\n    a = []\n    a.append(a)\n    return a",
    "bad str": "class B:\n    def __str__(self): raise ValueError('no')\ndef tool(): return B()",
}

THEIR_MEDIA = "from fastmcp.utilities.types import Audio, File, Image\nEmbeddedResource = File\n"
OUR_MEDIA = "from portoser.tool import Audio, EmbeddedResource, Image\n"


def function_of(code: str) -> Any:
    namespace: dict[str, Any] = {"__name__": "parity_reference"}
    import sys
    import types

    module = types.ModuleType("parity_reference")
    sys.modules["parity_reference"] = module
    namespace = module.__dict__
    exec(compile(HEADER + THEIR_MEDIA + textwrap.dedent(code), "reference.py", "exec", dont_inherit=True), namespace)
    return namespace["tool"]


def ours(code: str) -> str:
    return HEADER + OUR_MEDIA + textwrap.dedent(code)


@pytest.mark.parametrize("name", SIGNATURES)
async def test_schemas_are_those_of_fastmcp(shared_bench: Any, name: str) -> None:
    code = SIGNATURES[name]
    expected = ParsedFunction.from_function(function_of(code))
    described = await shared_bench.describe(ours(code))
    assert described.input_schema == expected.input_schema
    assert described.output_schema == expected.output_schema
    assert described.description == (expected.description or "")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", RESULTS)
async def test_results_are_those_of_fastmcp(shared_bench: Any, name: str) -> None:
    code = RESULTS[name]
    tool = FunctionTool.from_function(function_of(code))
    described = await shared_bench.describe(ours(code))
    assert described.output_schema == tool.output_schema
    execution = await shared_bench.run(ours(code), output_schema=described.output_schema)
    try:
        expected = await tool.run({})
    except (ToolError, ValueError):
        assert (execution.outcome, execution.reason) == ("error", "not_serializable"), execution
        return
    assert execution.outcome == "ok", execution
    assert execution.content == [block.model_dump(by_alias=True, exclude_none=True) for block in expected.content]
    assert execution.structured == expected.structured_content


async def test_an_embedded_resource_is_resource_content(shared_bench: Any) -> None:
    code = """
        from portoser.tool import EmbeddedResource
        def tool():
            return [EmbeddedResource("notes/a b.md", text="# A"), EmbeddedResource("s3://x/y.bin", data=b"z")]
    """
    execution = await shared_bench.run(code)
    assert execution.content == [
        {
            "type": "resource",
            "resource": {"uri": "file:///notes/a%20b.md", "mimeType": "text/markdown", "text": "# A"},
        },
        {
            "type": "resource",
            "resource": {"uri": "s3://x/y.bin", "mimeType": "application/octet-stream", "blob": "eg=="},
        },
    ]
