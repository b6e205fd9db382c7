"""References to secrets that the platform was to put in the place of a setting, and has not."""

from __future__ import annotations

# How a reference to a secret begins. App Service puts the secret in its place, and leaves it where it cannot.
_REFERENCES = ("@microsoft.keyvault(", "@microsoft.appconfiguration(")


def is_reference(text: str) -> bool:
    """Tell whether a setting's value is a reference that the platform has not resolved."""
    return text.lower().startswith(_REFERENCES)


def reference_problem(name: str) -> str:
    """Give the sentence on the setting `name`, whose value is a reference."""
    return (
        f"{name} is a reference that is not resolved: the secret is not there, the app's identity may not read it, "
        "or the vault cannot be reached"
    )
