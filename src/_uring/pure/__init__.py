"""The same as the compiled modules, in Python: for backend ``python``, and for connections that have no socket of their
own, such as those over TLS.
"""
