"""Access tokens: how they are had, kept, renewed and attached. Knows nothing of businesses or Azure Functions."""
