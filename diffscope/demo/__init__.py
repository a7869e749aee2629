"""The embedded demo: two small models trained by `scripts/train_demo.py` and 2,000 images of Fashion-MNIST (MIT)."""
