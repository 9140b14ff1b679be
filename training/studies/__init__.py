"""What was asked beside the shipped models: audits, replications, ablations, and the report."""
