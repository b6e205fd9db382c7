"""Access tokens: requesting, keeping, renewing, sharing and attaching them. Knows nothing of Azure Functions."""
