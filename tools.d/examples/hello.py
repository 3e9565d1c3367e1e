from typing import Literal

GREETINGS = {"de": "Hallo", "en": "Hello", "es": "Hola", "fr": "Bonjour"}


def hello(name: str, language: Literal["de", "en", "es", "fr"] = "en") -> str:
    """Say hello to somebody by name.

    Args:
        name: Whom to say hello to.
        language: The language to say it in.
    """
    return f"{GREETINGS[language]}, {name}!"
