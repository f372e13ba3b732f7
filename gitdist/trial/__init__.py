"""One classifier training: sampling, Algorithm 1, losses, measures, checkpoints. Knows no Ray, MLflow or Optuna."""
