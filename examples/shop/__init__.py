"""A shop platform: tenants, customers, addresses, orders. The same code with encryption on and off."""
