"""Annotation files of every format, read into one form that detection and segmentation share."""
