"""Learns, while it runs, which LLM to use for each query of a Kafka stream."""
