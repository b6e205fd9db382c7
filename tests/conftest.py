"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# An example that takes long says something about the machine, which runs other tests at the same time.
settings.register_profile("relay", deadline=None)
settings.load_profile("relay")
