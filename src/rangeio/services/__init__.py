"""The storage services: addresses, authentication and capabilities of each. The engine and the core do the reads."""
