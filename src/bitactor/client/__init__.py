"""Clients of the service, for threads and for asyncio. Loads neither the compiler nor the engine."""
