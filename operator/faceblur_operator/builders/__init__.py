"""Manifests of the objects that a cluster owns, one module each: a spec in, a dictionary out, nothing looked up."""
