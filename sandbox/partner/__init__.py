"""The partner of the sandbox: an OAuth2-protected business API with its token endpoint, and faults on demand."""
