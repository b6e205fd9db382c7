"""What an Idempotency-Key may be, as it comes from callers and as it goes to the partner."""

from __future__ import annotations

import re

IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
"""The IETF draft of the header leaves the length to the server."""
