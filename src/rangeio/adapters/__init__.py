"""rangeio in the shape of something else: files with a cursor, and whatever other libraries want to be given."""
