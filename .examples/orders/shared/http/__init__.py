"""The HTTP interface: what a request may be, and what is answered. Knows nothing of Azure."""
