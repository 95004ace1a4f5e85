"""The services, where the core meets the edges: router · worker · learner · publisher · rebuild."""

from metallm_stream.serve.start import connection, learner, names, router, serve, utc_now, worker

__all__ = ["connection", "learner", "names", "router", "serve", "utc_now", "worker"]
