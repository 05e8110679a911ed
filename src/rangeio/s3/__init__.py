"""The parts specific to S3: signatures, credentials, bucket addresses, error responses and listings. No sockets."""
