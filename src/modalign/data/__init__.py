"""Training data: aligned pairs, patches and their augmentation, simulated displacements, synthetic tissue."""
