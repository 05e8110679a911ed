"""Files over a network that keep what they have read: `as_file(cache=)`, and those of rangeio.fsspec and of HDF5."""
