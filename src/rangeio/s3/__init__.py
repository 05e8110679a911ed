"""What is S3's own: signatures, credentials, where buckets are, what error responses and listings say. No sockets."""
