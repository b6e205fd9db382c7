"""The app's own package: tokens in `auth`, the partner's API in `api`, the orchestrations in `delivery`."""
