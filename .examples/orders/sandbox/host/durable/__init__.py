"""Durable Functions: the task hub, the orchestrators and activities that it runs, and their webhooks."""
