"""What the orchestrations do with a record. Knows nothing of HTTP clients."""
