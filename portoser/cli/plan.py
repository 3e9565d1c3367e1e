"""x"""


def plan() -> None:
    """x"""
