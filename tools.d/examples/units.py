"""Which units there are, and how each relates to the base unit of its quantity."""

from typing import NamedTuple


class Unit(NamedTuple):
    """A unit: ``base value = value * factor + offset``."""

    quantity: str
    factor: float
    offset: float = 0.0


UNITS = {
    "mm": Unit("length", 0.001),
    "cm": Unit("length", 0.01),
    "m": Unit("length", 1.0),
    "km": Unit("length", 1000.0),
    "in": Unit("length", 0.0254),
    "ft": Unit("length", 0.3048),
    "mi": Unit("length", 1609.344),
    "g": Unit("mass", 0.001),
    "kg": Unit("mass", 1.0),
    "oz": Unit("mass", 0.028349523125),
    "lb": Unit("mass", 0.45359237),
    "K": Unit("temperature", 1.0),
    "degC": Unit("temperature", 1.0, 273.15),
    "degF": Unit("temperature", 5 / 9, 459.67 * 5 / 9),
    "B": Unit("data", 1.0),
    "kB": Unit("data", 1000.0),
    "MB": Unit("data", 1000.0**2),
    "GB": Unit("data", 1000.0**3),
    "KiB": Unit("data", 1024.0),
    "MiB": Unit("data", 1024.0**2),
    "GiB": Unit("data", 1024.0**3),
}
