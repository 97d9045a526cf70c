"""Blurs the pictures of a bucket or folder into another: a planner, tasks of pages of keys, and the ledger of a job."""
