"""The app's record types as the sandbox serves them: where each partner stands, and the settings that lead there."""

from __future__ import annotations

import importlib
import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import ResourceError
from shared.resource import check_resources

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shared.resource import Partner, Resource

# Settings that name another source of tokens. An empty setting counts as none, even if local.settings.json has it.
_OTHER_GRANTS = ("ISSUER", "TENANT_ID", "MANAGED_IDENTITY")
_FILE = str(Path("shared", "partner.py"))


def load_resources() -> list[Resource]:
    """Return `RESOURCES` of `shared/partner.py`, which `python -m sandbox … --app DIR` imports from that folder.

    Raises:
        ResourceError: they cannot live in one app, or the file cannot be imported; the text names the line.
    """
    try:
        partner = importlib.import_module("shared.partner")
    except ResourceError:
        raise
    except Exception as exc:
        lines = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if frame.filename.endswith(_FILE)]
        lines += [exc.lineno] if isinstance(exc, SyntaxError) else []
        where = f"line {lines[-1]}: " if lines else ""
        raise ResourceError([f"{where}{type(exc).__name__}: {getattr(exc, 'msg', exc)}"]) from exc
    if not hasattr(partner, "RESOURCES"):
        raise ResourceError(["it has no RESOURCES = […], the list of its record types"])
    check_resources(partner.RESOURCES)
    return list(partner.RESOURCES)


def partners_of(resources: Iterable[Resource]) -> list[Partner]:
    """Return the partners of these resources, each once, in their order."""
    return list({resource.partner.name: resource.partner for resource in resources}.values())


def base_path(partner: Partner) -> str:
    """Return the path below which the sandbox serves this partner: "/crm-api" for `Partner("CRM_API")`."""
    return "/" + partner.name.lower().replace("_", "-")


def client_of(partner: Partner) -> tuple[str, str]:
    """Return the id and the secret of the OAuth2 client that this partner knows."""
    name = partner.name.lower().replace("_", "-")
    return f"sandbox-client-{name}", f"sandbox-secret-{name}"


def sandbox_settings(base_url: str, resources: Sequence[Resource]) -> dict[str, str]:
    """Return the app settings with which every partner of these resources is the sandbox's at `base_url`."""
    settings: dict[str, str] = {}
    for partner in partners_of(resources):
        url = f"{base_url}{base_path(partner)}"
        client_id, client_secret = client_of(partner)
        settings |= {
            f"{partner.name}_URL": url,
            f"{partner.name}_TOKEN_URL": f"{url}/auth/token",
            f"{partner.name}_CLIENT_ID": client_id,
            f"{partner.name}_CLIENT_SECRET": client_secret,
        }
    return settings


def app_settings(
    base_url: str, resources: Sequence[Resource], environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return `sandbox_settings`, and an empty value for every other setting of the app in `environ`."""
    partners = [partner.name for partner in partners_of(resources)]
    prefixes = tuple(f"{name}_" for name in (*partners, "DELIVERY", "TOKEN_STORE"))
    aside = [name for name in environ if name.startswith(prefixes)]
    aside += [f"{partner}_{grant}" for partner in partners for grant in _OTHER_GRANTS]
    return dict.fromkeys(aside, "") | sandbox_settings(base_url, resources)
