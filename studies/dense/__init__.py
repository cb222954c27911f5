"""Evidence of comparisons whose score is no mean over images: segmentation and detection."""
