"""Boolean options of session URIs."""


def boolean(text: str) -> bool:
    """Convert `true`, `yes`, `on`, `1` and their opposites."""
    lowered = text.lower()
    if lowered in {"true", "yes", "on", "1"}:
        return True
    if lowered in {"false", "no", "off", "0"}:
        return False
    raise ValueError("write true or false")
