"""Objects of other libraries (fsspec, obstore, pyarrow, Python objects), each as a `Store`. No threads, no planning."""
