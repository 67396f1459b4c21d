"""The whole jobs: compress, pick, scan; their stages, the run folder, the search for a drop."""
