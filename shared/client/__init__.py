"""Outbound HTTP: the calls to a partner."""
