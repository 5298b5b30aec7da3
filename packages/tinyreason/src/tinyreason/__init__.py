"""Tools for models that reason by generating text. No torch, standard library only."""

from tinyreason.calculator import Calculator
from tinyreason.rational import CalculatorError

__all__ = ["Calculator", "CalculatorError"]
