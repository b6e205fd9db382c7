"""The errors of this package: each is one line for whoever ran the command.

DeploymentError
├── PackageError        the project cannot be packaged
├── RequirementsError   the requirements of the package are not known
└── TrialError          the package does not work
"""

from __future__ import annotations


class DeploymentError(Exception):
    """A command cannot do what it is for."""


class PackageError(DeploymentError):
    """The project cannot be packaged."""


class RequirementsError(DeploymentError):
    """The requirements of the package are not known."""


class TrialError(DeploymentError):
    """The package does not work."""
