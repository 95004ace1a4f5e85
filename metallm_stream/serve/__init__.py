"""The services, where the core meets the edges; import the one you run, and no more is loaded."""
