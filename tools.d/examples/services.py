from typing import Any

from portoser.tool import registry


def services(text: str = "") -> list[dict[str, Any]]:
    """Find services in the registry, and where they run.

    Args:
        text: Only services that mention this text anywhere, in any case; empty for all.
    """
    return [service for service in registry.services() if text.lower() in str(service).lower()]
