"""The partners of the sandbox: what `RESOURCES` describe, behind OAuth2, with faults on demand."""
