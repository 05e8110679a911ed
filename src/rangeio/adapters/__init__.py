"""Adapters from ranges to other interfaces: files with a cursor, for libraries that need one."""
