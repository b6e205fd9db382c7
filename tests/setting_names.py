"""The names of all app settings."""

from __future__ import annotations

from shared.settings.app_settings import KEYS, NAMES


def setting_names(partner: str = "BUSINESS_API") -> set[str]:
    """Return the name of every setting of the app and of one partner."""
    return {*NAMES, *(f"{partner}_{key}" for key in KEYS)}
