"""Speed and memory of Saltworks beside the plain formulations of the same functions."""
