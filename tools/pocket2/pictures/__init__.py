"""Drawings of many vendors, and pictures made of them."""
