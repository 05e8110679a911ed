"""Google Cloud Storage: endpoint, identity, signatures, responses. `services.gcs` puts them together."""
