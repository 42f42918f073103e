"""Private predictions: clients, a service, and what both agree on."""
