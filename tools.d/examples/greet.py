from typing import Literal

GREETINGS = {"de": "Hallo", "en": "Hello", "es": "Hola", "fr": "Bonjour"}


def greet(name: str, language: Literal["de", "en", "es", "fr"] = "en") -> str:
    """Greet somebody by name.

    Args:
        name: Whom to greet.
        language: The language to greet in.
    """
    return f"{GREETINGS[language]}, {name}!"
