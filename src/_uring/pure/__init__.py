"""The twins of the compiled modules in Python: for backend ``python``, and for connections without a plain socket, such
as those over TLS.
"""
