"""Builds the package that is deployed to Azure, and tries it out. `python -m deployment --help` lists the commands."""
