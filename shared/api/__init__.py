"""The partner's API as Python methods. Knows nothing of Durable Functions."""
