"""`relay`, the command line of Business Relay. It talks to a running app over HTTP and imports nothing of it."""
