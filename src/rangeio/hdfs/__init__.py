"""HDFS: settings of a cluster, its name nodes, and the responses of WebHDFS. No I/O over a network."""
