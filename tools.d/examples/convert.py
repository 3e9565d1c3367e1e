from dataclasses import dataclass

from portoser.tool import ToolError

from units import UNITS, Unit


@dataclass
class Converted:
    """A converted value, rounded to ten significant digits."""

    value: float
    unit: str
    quantity: str


def convert(value: float, from_unit: str, to_unit: str) -> Converted:
    """Convert a value between units of length, mass, temperature or data.

    Args:
        value: The value to convert.
        from_unit: The unit it is in, for example km, lb, degF or GiB.
        to_unit: The unit that is wanted; it must measure the same quantity.
    """
    source, target = find_unit(from_unit), find_unit(to_unit)
    if source.quantity != target.quantity:
        raise ToolError(f"{from_unit} measures {source.quantity}, but {to_unit} measures {target.quantity}.")
    base = value * source.factor + source.offset
    return Converted(float(f"{(base - target.offset) / target.factor:.10g}"), to_unit, target.quantity)


def find_unit(name: str) -> Unit:
    try:
        return UNITS[name]
    except KeyError:
        raise ToolError(f"There is no unit {name!r}; choose one of {', '.join(UNITS)}.") from None
