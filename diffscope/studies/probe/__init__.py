"""Accuracy of a linear probe and of k-NN over noise levels, beside ICR."""
