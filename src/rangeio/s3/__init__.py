"""What is S3's own: signatures, credentials, where buckets are, what error replies and listings say. No sockets."""
