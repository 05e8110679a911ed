"""One ranged GET done right, over N connections: format, validation, pool, engine, and what drives it."""
