"""Reads and checks the app settings."""
