"""Units of measure and what they are in the base unit of their kind, exactly. Money is none: a dollar sign says nothing more
than the number beside it, and `$18` is `18`.

The inch is 2.54 cm and the pound 0.45359237 kg by definition (international yard and pound agreement, 1959); a US gallon
is 231 cubic inches.
"""

from __future__ import annotations

from fractions import Fraction

_INCH, _POUND = Fraction("0.0254"), Fraction("0.45359237")
_GALLON = 231 * (_INCH * 10) ** 3  # in litres: a cubic decimetre

_KINDS: dict[str, dict[str, Fraction | int]] = {
    "metre": {
        "mm millimeter millimeters millimetre millimetres": Fraction(1, 1000),
        "cm centimeter centimeters centimetre centimetres": Fraction(1, 100),
        "m meter meters metre metres metro metros": 1,
        "km kilometer kilometers kilometre kilometres kilómetros": 1000,
        "in inch inches": _INCH,
        "ft foot feet": 12 * _INCH,
        "yd yard yards": 36 * _INCH,
        "mi mile miles": 63360 * _INCH,
    },
    "kilogram": {
        "mg milligram milligrams": Fraction(1, 10**6),
        "g gram grams gramos": Fraction(1, 1000),
        "kg kilogram kilograms kilogramos": 1,
        "t tonne tonnes": 1000,
        "oz ounce ounces": _POUND / 16,
        "lb lbs pound pounds": _POUND,
    },
    "second": {
        "ms millisecond milliseconds": Fraction(1, 1000),
        "s sec second seconds segundos": 1,
        "min minute minutes minutos": 60,
        "h hr hour hours hora horas": 3600,
        "day days día días": 86400,
        "week weeks semana semanas": 604800,
    },
    "litre": {
        "ml milliliter milliliters millilitre millilitres": Fraction(1, 1000),
        "l liter liters litre litres litros": 1,
        "gal gallon gallons": _GALLON,
        "quart quarts": _GALLON / 4,
        "pint pints": _GALLON / 8,
        "cup cups": _GALLON / 16,
    },
}

UNITS: dict[str, tuple[str, Fraction]] = {
    name: (base, Fraction(factor))
    for base, units in _KINDS.items()
    for names, factor in units.items()
    for name in names.split()
}
"""Unit as it is written, in lower case -> (base unit of its kind, how many of those it is)."""
