"""The trained classifier as it leaves gitdist: probabilities of uint8 images, model files, predictions."""
