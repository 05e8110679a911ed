"""The storage services: each knows a URL, a signature and what the service can do; reading is done elsewhere."""
