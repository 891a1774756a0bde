"""What the backends on AWS share: clients, worker threads, and what went wrong."""
