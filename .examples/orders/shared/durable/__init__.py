"""Deliveries as durable orchestrations: orchestrators, activities and the Durable client."""
