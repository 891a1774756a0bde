"""What happens to keys after they were made: states, erasure."""
