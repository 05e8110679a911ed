"""Azure Blob Storage: signatures, identity, settings, addresses, responses and listings. No I/O but for tokens."""
