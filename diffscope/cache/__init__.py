"""What is kept on disk between runs and within them: finished parts, records, VAE latents."""
