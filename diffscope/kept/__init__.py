"""What is kept between runs: VAE latents, in sets that are bounded and never stale, and what else lies there."""
