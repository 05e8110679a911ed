"""Repositories of the Hugging Face Hub: their names and addresses, tokens, errors and listings. No I/O but of the token
file.
"""
