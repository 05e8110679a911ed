"""One ranged GET done right, over N connections: format, rules, pool, engine, and what drives it."""
