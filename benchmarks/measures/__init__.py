"""One benchmark a file; each runs in its own process and prints one JSON line for each figure."""
