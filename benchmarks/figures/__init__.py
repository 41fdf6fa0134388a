"""Figures by their ids, one file each; a command shows those that are measured together."""
