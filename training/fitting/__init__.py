"""How weights are fitted: the Lightning module, teachers, runs and cross-validation."""
