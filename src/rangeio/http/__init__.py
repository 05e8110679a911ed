"""Range requests over HTTP: parsing, validation, connection pool, engine, and the drivers of the engine."""
