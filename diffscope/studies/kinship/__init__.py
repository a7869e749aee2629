"""How alike two representations of the same images are: linear CKA and alignment of nearest neighbours."""
