"""Outbound HTTP: the partner's API as Python methods, and the one transport below them."""
