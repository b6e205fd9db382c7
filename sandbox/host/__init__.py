"""A local Azure Functions host: Microsoft's Python worker runtime and durable engine, run on one machine.

`python -m sandbox host` runs it; `run_host` in `sandbox.host.host` is the same as a coroutine. docs/sandbox.md
says what it does as the platform does, and what it does not.
"""
