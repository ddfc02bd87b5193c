"""What is stored of models: artifact folders, weights files from outside, and the Hugging Face hub."""
